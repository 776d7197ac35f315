// Package zoo keeps processes of every kind, alive and made up, for the tests of
// those who look at processes. Nothing but tests imports it.
//
// A live one is the test binary again: [Main], called by TestMain, makes it play
// the role that it was started with. [Start] returns when it is what the role
// says, and it ends with the test, however that ends.
package zoo
