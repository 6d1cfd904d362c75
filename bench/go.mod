module github.com/autobus-go/autobus/bench

go 1.25.0

require (
	github.com/autobus-go/autobus v0.0.0
	github.com/fernet/fernet-go v0.0.0-20240119011108-303da6aec611
)

require golang.org/x/crypto v0.55.0 // indirect

replace github.com/autobus-go/autobus => ../
