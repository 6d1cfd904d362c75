module github.com/autobus-go/autobus

go 1.25.0
