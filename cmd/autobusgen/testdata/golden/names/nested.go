package names

// struct2 gets its methods in the file of its own.
type struct2 struct {
	struct3
	quiet func() `autobus:"-"`
	_     [4]byte
}

type struct3 struct{ E, D float32 }
