package fsm

// RegistrationState is how procmond stands with its agent.
type RegistrationState string

// The states of the registration.
const (
	RegistrationUnregistered  RegistrationState = "unregistered"  // no agent knows us; where it stays in standalone mode
	RegistrationRegistering   RegistrationState = "registering"   // asking
	RegistrationRegistered    RegistrationState = "registered"    // accepted; heartbeats are sent
	RegistrationDeregistering RegistrationState = "deregistering" // saying good-bye
	RegistrationFailed        RegistrationState = "failed"        // rejected, or out of attempts; tried again later
)

// RegistrationEvent moves the registration.
type RegistrationEvent string

// The events of the registration.
const (
	RegistrationRegister   RegistrationEvent = "register"   // an attempt, or a series of them, begins
	RegistrationAccept     RegistrationEvent = "accept"     // the agent accepted
	RegistrationReject     RegistrationEvent = "reject"     // the agent refused, and said why
	RegistrationExhaust    RegistrationEvent = "exhaust"    // the last attempt of a series got no answer
	RegistrationDisconnect RegistrationEvent = "disconnect" // the connection, or the service that used it, is gone
	RegistrationDeregister RegistrationEvent = "deregister" // an orderly leave begins
	RegistrationDone       RegistrationEvent = "done"       // the leave is acknowledged, or given up
)

// NewRegistration makes the registration's machine, in [RegistrationUnregistered].
func NewRegistration() *Machine[RegistrationState, RegistrationEvent] {
	return registration().mustNew()
}

func registration() definition[RegistrationState, RegistrationEvent] {
	return definition[RegistrationState, RegistrationEvent]{
		name: MachineRegistration,
		states: []RegistrationState{
			RegistrationUnregistered, RegistrationRegistering, RegistrationRegistered,
			RegistrationDeregistering, RegistrationFailed,
		},
		events: []RegistrationEvent{
			RegistrationRegister, RegistrationAccept, RegistrationReject, RegistrationExhaust,
			RegistrationDisconnect, RegistrationDeregister, RegistrationDone,
		},
		rules: []rule[RegistrationState, RegistrationEvent]{
			{RegistrationRegister, []RegistrationState{RegistrationUnregistered, RegistrationFailed}, RegistrationRegistering},
			{RegistrationAccept, []RegistrationState{RegistrationRegistering}, RegistrationRegistered},
			{RegistrationReject, []RegistrationState{RegistrationRegistering}, RegistrationFailed},
			{RegistrationExhaust, []RegistrationState{RegistrationRegistering}, RegistrationFailed},
			{
				RegistrationDisconnect,
				[]RegistrationState{RegistrationRegistering, RegistrationRegistered, RegistrationDeregistering},
				RegistrationUnregistered,
			},
			{RegistrationDeregister, []RegistrationState{RegistrationRegistered}, RegistrationDeregistering},
			{RegistrationDone, []RegistrationState{RegistrationDeregistering}, RegistrationUnregistered},
		},
	}
}
