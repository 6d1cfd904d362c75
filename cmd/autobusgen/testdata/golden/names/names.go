// Package names declares what generated methods would like to.
package names

import (
	"errors"
	d "time"

	"github.com/autobus-go/autobus"
)

//go:generate go tool autobusgen -type=First,second
//go:generate go run github.com/autobus-go/autobus/cmd/autobusgen@latest -type Third

var (
	e, key, keys, elem, number, err, n = 0, 0, 0, 0, 0, errors.New("n"), 0
	strconv                            = 1
)

type (
	// First is named by -type.
	First struct {
		A    map[slices]int8
		B    []field
		C    map[string]map[int8]second
		D    d.Time
		E    *text
		F    [2]autobus.Raw
		G    int32 `autobus:"\"quo\\ted\",string"`
		HTTP struct2
		É    int
	}
	second struct {
		X uint `autobus:",required"`
	}
	//autobus:event third.event
	Third struct {
		Field                                field
		IPv4                                 string
		UserIDs                              []int
		URLsSeen                             int
		X2Y                                  int
		Foo_Bar                              int
		Dash                                 int `json:"-,"`
		Sha256                               [32]byte
		HTTPServer, ServerHTTP, ID, A1B2, OK int
	}
	slices string
	field  int8
	text   []byte
)

func math() {}
