// Package warden lets the agent run without privileges while its collectors keep
// theirs: a small parent with privileges ([Run]) starts the agent as another user,
// and starts, signals and reaps collectors for it. The agent sees the parent as its
// starter of programs, a [Link].
//
// The parent takes what its child sends for hostile. It starts only programs of its
// own list, named by their place in it, one process each at a time, and sends them no
// signal but TERM and KILL; everything else ends the connection, and with it that
// child. It opens no socket, and reads nothing but these lines:
//
//	{"do":"start","n":0}      {"what":"started","n":0,"pid":123}
//	{"do":"term","n":0}       {"what":"failed","n":0,"text":"no such file"}
//	{"do":"kill","n":0}       {"what":"exited","n":0,"pid":123,"code":73,"text":"exit status 73"}
//	                          {"what":"ready"}
//
// A child that ends is started again, with growing pauses; the collectors live on
// meanwhile. The next child first hears "started" of each that runs, and then
// "ready". When the parent is gone, the child ends in order and leaves the collectors
// alone.
package warden
