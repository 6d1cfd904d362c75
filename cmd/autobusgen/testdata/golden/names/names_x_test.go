package names_test

import "github.com/autobus-go/autobus/cmd/autobusgen/testdata/golden/names"

//autobus:event Outside
type First struct {
	Nested names.First
	Third  *names.Third
}
