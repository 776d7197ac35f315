// Package control is the daemon's local face: HTTP on a Unix socket, the state
// document, Prometheus metrics, and the client that asks for them.
//
// # Paths
//
//	GET /state    the [State] document
//	GET /events   events as JSON lines; ?follow=1 goes on as they become durable
//	GET /metrics  Prometheus text
//	GET /healthz  200 while healthy or degraded, 503 when unhealthy, with the
//	              reasons; ?strict=1 answers 503 when degraded too
//	GET /ping     204, whatever the state: the server answers
//
// Errors are one JSON object {"error", "hint"}. Other methods are refused with
// 405, bodies with 413.
//
// # Who may ask
//
// The socket has mode 0600 from its first moment, and each connection's
// credentials are checked: root, and the user that the daemon runs as. Requests
// are bounded in size, in time and in number; what is refused is counted.
//
// # What a client can not do
//
// No request changes anything. A client that reads slowly or not at all is
// dropped after a deadline; it never holds up the daemon. State is put together
// without I/O, so it answers while a disk hangs.
package control
