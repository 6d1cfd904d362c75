// Package examples has small programs that use the bus, each in a folder of
// its own, to be run as they are and to be begun with:
//
//   - sensors: devices on a LAN and a display, with no server
//   - worker: a Go service and a Python worker on Redis, encrypted
//   - web: an HTTP server that starts and stops with the bus
//   - heartbeat: a scheduled event, who is there and who has gone, and how to
//     test handlers without a network
//   - bridge: two buses in one process, one carried to the other
//
// A transport of one's own is ExampleTransport of package autobus.
package examples
