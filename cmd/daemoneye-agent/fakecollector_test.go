package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/collect/event"
)

// socketDialer goes to a Unix socket.
type socketDialer string

func (d socketDialer) Dial(string, string) (net.Conn, error) {
	return new(net.Dialer).DialContext(context.Background(), "unix", string(d))
}

// fakeCollector is the program that the tests run as a collector. It publishes three
// events when it is begun.
type fakeCollector struct {
	nc       *nats.Conn
	id       string
	instance string
	state    string
	sequence uint64
	stop     chan struct{}
}

// collectorMain runs it. Its arguments: "exit N" ends at once.
func collectorMain() {
	if len(os.Args) == 3 && os.Args[1] == "exit" {
		code, _ := strconv.Atoi(os.Args[2])
		os.Exit(code)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	c := &fakeCollector{id: os.Getenv("PROCMOND_ID"), instance: strconv.Itoa(os.Getpid()), state: "waiting_for_agent", stop: make(chan struct{})}
	if err := c.run(signals); err != nil {
		fmt.Fprintln(os.Stderr, "fake collector:", err)
		os.Exit(1)
	}
}

func (c *fakeCollector) run(signals <-chan os.Signal) error {
	socket := os.Getenv(rpc.EnvSocket)
	reconnected := make(chan struct{}, 16)
	var err error
	c.nc, err = nats.Connect("nats://x", nats.SetCustomDialer(socketDialer(socket)), nats.SkipHostLookup(), nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.CustomInboxPrefix(rpc.InboxPrefix(c.id)),
		nats.UserInfoHandler(func() (string, string) {
			secret, _ := os.ReadFile(rpc.SecretPath(socket, c.id))
			return c.id, strings.TrimSpace(string(secret))
		}),
		nats.IgnoreAuthErrorAbort(),
		nats.ConnectHandler(func(*nats.Conn) { reconnected <- struct{}{} }),
		nats.ReconnectHandler(func(*nats.Conn) { reconnected <- struct{}{} }))
	if err != nil {
		return err
	}
	defer c.nc.Close()
	requests := make(chan *nats.Msg, 64)
	for _, subject := range []string{rpc.CollectorSubject(c.id), rpc.SubjectLifecycle} {
		if _, err := c.nc.ChanSubscribe(subject, requests); err != nil {
			return err
		}
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	registered := false
	for {
		select {
		case <-reconnected:
			registered = c.register()
		case msg := <-requests:
			c.answer(msg)
			c.beat()
		case <-tick.C:
			if !registered && c.nc.IsConnected() {
				registered = c.register()
			}
			c.beat()
		case <-signals:
			_, err := c.call(rpc.OpDeregister, rpc.Farewell{Instance: c.instance, Reason: "stop"})
			return err
		case <-c.stop:
			_, err := c.call(rpc.OpDeregister, rpc.Farewell{Instance: c.instance, Reason: "asked"})
			return err
		}
	}
}

func (c *fakeCollector) call(op rpc.Operation, payload any) (rpc.Response, error) {
	text, _ := json.Marshal(payload)
	q, _ := json.Marshal(rpc.Request{RequestID: "r", Operation: op, Deadline: time.Now().Add(2 * time.Second), Payload: text})
	var response rpc.Response
	msg, err := c.nc.Request(rpc.RegistrationSubject(c.id), q, 2*time.Second)
	if err != nil {
		return response, err
	}
	return response, json.Unmarshal(msg.Data, &response)
}

func (c *fakeCollector) register() bool {
	response, err := c.call(rpc.OpRegister, rpc.Registration{
		Protocol: rpc.Protocol, ID: c.id, Instance: c.instance, Version: "fake", PID: os.Getpid(), State: c.state,
	})
	return err == nil && response.Status == rpc.StatusOK
}

func (c *fakeCollector) beat() {
	c.sequence++
	text, _ := json.Marshal(rpc.Heartbeat{
		ID: c.id, Instance: c.instance, Sequence: c.sequence, Health: "healthy", Collector: c.state, Coordinated: c.state == "running", IntervalMS: 30000,
	})
	_ = c.nc.Publish(rpc.HeartbeatSubject(c.id), text)
}

func (c *fakeCollector) answer(msg *nats.Msg) {
	var q rpc.Request
	_ = json.Unmarshal(msg.Data, &q)
	response := rpc.Response{RequestID: q.RequestID, Operation: q.Operation, Status: rpc.StatusOK}
	var payload any
	switch q.Operation {
	case rpc.OpBeginMonitoring:
		changed := c.state != "running"
		c.state = "running"
		if changed {
			c.publish()
		}
		payload = rpc.BeginResult{Changed: changed, Coordinated: true}
	case rpc.OpHealthCheck:
		payload = json.RawMessage(`{"health":"degraded","reasons":["a test\u001b[2J"],"pid":` + strconv.Itoa(os.Getpid()) + `,"collector":{"state":"running"}}`)
	case rpc.OpUpdateConfig:
		var u rpc.UpdateConfig
		_ = json.Unmarshal(q.Payload, &u)
		result := rpc.ConfigResult{Version: 2}
		for key := range u.Values {
			if key == "bad" {
				response.Status, response.Error = rpc.StatusError, &rpc.Error{Code: rpc.CodeInvalid, Message: "refused", Details: []rpc.Detail{{Key: key, Reason: "no such key"}}}
			}
			result.Applied = append(result.Applied, key+"="+string(u.Values[key]))
		}
		payload = result
	case rpc.OpAdjustInterval:
		payload = rpc.IntervalResult{ConfiguredMS: 30000, CurrentMS: 5000, Reason: "the agent asked for it"}
	case rpc.OpGracefulShutdown:
		payload = rpc.ShutdownResult{Complete: true, Delivered: 3}
		defer close(c.stop)
	}
	if msg.Reply == "" {
		return
	}
	response.Payload, _ = json.Marshal(payload)
	text, _ := json.Marshal(response)
	_ = msg.Respond(text)
}

// publish sends three events.
func (c *fakeCollector) publish() {
	js, err := c.nc.JetStream()
	if err != nil {
		return
	}
	epoch := event.NewEpoch()
	for i := range 3 {
		e := event.Event{
			Kind: event.KindStart, Source: event.SourceScan, HostID: "host", Time: time.Now(), Observed: time.Now(),
			Process: event.Process{PID: int32(1000 + i), PPID: 1, Name: "sleep", Exe: "/bin/sleep\x1b[2J", Args: []string{"sleep", strconv.Itoa(i)}},
		}
		msg := nats.NewMsg(rpc.EventSubject(e.Kind, "host", c.id))
		msg.Data = event.Append(nil, &e)
		msg.Header.Set(nats.MsgIdHdr, rpc.MsgID(epoch, uint64(i+1)))
		if _, err := js.PublishMsg(msg); err != nil {
			fmt.Fprintln(os.Stderr, "fake collector:", err)
		}
	}
}
