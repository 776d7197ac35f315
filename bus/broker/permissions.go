package broker

import (
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"daemoneye.dev/procmond/bus/rpc"
)

// How a collector may answer a request: few times, since some say more than one
// thing, and within the longest deadline that makes sense.
const (
	maxAnswers  = 4
	answerUntil = 5 * time.Minute
)

// permissions of a user that is not the agent; nil if the name is none.
func permissions(user string) *server.Permissions {
	if user == rpc.UserOperator {
		return operatorPermissions()
	}
	if name, ok := rpc.ReaderOf(user); ok {
		return readerPermissions(user, name)
	}
	if rpc.ValidID(user) == nil {
		return collectorPermissions(user)
	}
	return nil
}

func collectorPermissions(id string) *server.Permissions {
	return &server.Permissions{
		Publish:   allow(rpc.EventSubjectsOf(id), rpc.RegistrationSubject(id), rpc.HeartbeatSubject(id)),
		Subscribe: allow(rpc.CollectorSubject(id), rpc.SubjectLifecycle, rpc.InboxPrefix(id)+".>"),
		Response:  &server.ResponsePermission{MaxMsgs: maxAnswers, Expires: answerUntil},
	}
}

func readerPermissions(user, name string) *server.Permissions {
	return &server.Permissions{
		Publish:   allow(slices.Concat(streamQueries(), ownConsumer(name))...),
		Subscribe: allow(rpc.StreamSubjects, rpc.InboxPrefix(user)+".>"),
	}
}

func operatorPermissions() *server.Permissions {
	unnamed := "$JS.API.CONSUMER.CREATE." + rpc.Stream // older clients don't name what they throw away
	return &server.Permissions{
		Publish: allow(slices.Concat(
			[]string{rpc.CollectorSubject("*"), rpc.SubjectAgent, unnamed},
			streamQueries(), ownConsumer("*"))...),
		Subscribe: allow(append([]string{rpc.StreamSubjects, rpc.SubjectHeartbeats}, inboxes(rpc.UserOperator, ">")...)...),
	}
}

// streamQueries change nothing.
func streamQueries() []string {
	return []string{
		"$JS.API.INFO",
		"$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST",
		"$JS.API.STREAM.INFO." + rpc.Stream, "$JS.API.STREAM.MSG.GET." + rpc.Stream,
		"$JS.API.DIRECT.GET." + rpc.Stream, "$JS.API.DIRECT.GET." + rpc.Stream + ".>",
		"$JS.API.CONSUMER.NAMES." + rpc.Stream, "$JS.API.CONSUMER.LIST." + rpc.Stream,
		"$JS.API.CONSUMER.INFO." + rpc.Stream + ".*",
	}
}

// ownConsumer is what it takes to make, use and remove a consumer.
func ownConsumer(name string) []string {
	consumer := rpc.Stream + "." + name
	return []string{
		createConsumer + consumer, createConsumer + consumer + ".>", // with what it filters by
		createDurable + consumer,
		"$JS.API.CONSUMER.MSG.NEXT." + consumer, "$JS.API.CONSUMER.DELETE." + consumer,
		"$JS.ACK." + consumer + ".>", "$JS.FC." + consumer + ".>",
	}
}

// Subjects that make a consumer, whose messages the server then sends where the
// request says.
const (
	createConsumer = "$JS.API.CONSUMER.CREATE."
	createDurable  = "$JS.API.CONSUMER.DURABLE.CREATE."
)

func allow(subjects ...string) *server.SubjectPermission {
	return &server.SubjectPermission{Allow: subjects}
}

// inboxes of a user, with an end for each. The operator's own tools can be told to
// use a prefix; those of others use the usual one.
func inboxes(user, end string) []string {
	own := []string{rpc.InboxPrefix(user) + "." + end}
	if user == rpc.UserOperator {
		return append(own, "_INBOX."+end)
	}
	return own
}

// answerable says whether a user may have an answer sent to a subject.
func answerable(user, subject string) bool {
	return slices.ContainsFunc(inboxes(user, ""), func(prefix string) bool { return strings.HasPrefix(subject, prefix) })
}
