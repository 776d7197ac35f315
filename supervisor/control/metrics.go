package control

import (
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"daemoneye.dev/procmond/fsm"
)

// newMetrics serves Prometheus text made from a fresh [State] at each scrape, so
// that metrics and state can not disagree.
func (s *Server) newMetrics() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		&stateMetrics{server: s},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4,
		Timeout:             s.limits.write,
	})
}

// stateMetrics turns a state into metrics.
type stateMetrics struct{ server *Server }

// Describe sends nothing: which labels there are depends on the state.
func (m *stateMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect sends the metrics of the present state.
func (m *stateMetrics) Collect(ch chan<- prometheus.Metric) {
	e := emitter{ch}
	state := m.server.cfg.Source.State()
	e.daemon(state)
	e.collector(state)
	e.hashes(state.Hashes)
	e.store(&state.Store)
	e.link(state)
	e.services(state.Services)
	for _, loss := range state.Loss {
		e.counter("loss_events_total", "Loss events by cause.", loss.Count, "cause", loss.Cause)
		e.counter("loss_missing_total", "What is missing by cause, where it is known.", loss.Missing, "cause", loss.Cause)
	}
	e.counter("control_refused_connections_total", "Connections of other users to the control socket.", m.server.refused.Load())
	e.counter("control_busy_connections_total", "Connections above the limit of the control socket.", m.server.busy.Load())
	e.counter("control_slow_clients_total", "Clients dropped because they did not read.", m.server.slow.Load())
	e.counter("control_bad_requests_total", "Requests answered with an error.", m.server.bad.Load())
	e.counter("control_failed_metrics_listens_total", "Attempts to listen for metrics over TCP that failed.", m.server.unlisted.Load())
	e.counter("control_failed_self_checks_total", "Self-checks of the control socket that failed.", m.server.unwatched.Load())
}

type emitter struct{ ch chan<- prometheus.Metric }

func (e emitter) daemon(s *State) {
	e.gauge("info", "Always 1; the labels describe the daemon.", 1, "version", s.Version, "mode", s.Mode, "host_id", s.HostID, "snapshots", s.Sources.Snapshots, "events", s.Sources.Events)
	for _, health := range []string{HealthHealthy, HealthDegraded, HealthUnhealthy} {
		e.gauge("health", "1 for the present health.", oneIf(s.Health == health), "health", health)
	}
	machine(e, fsm.MachineCollector, s.Collector.State,
		fsm.CollectorWaitingForAgent, fsm.CollectorRunning, fsm.CollectorShuttingDown, fsm.CollectorStopped)
	machine(e, fsm.MachineRegistration, s.Registration.State,
		fsm.RegistrationUnregistered, fsm.RegistrationRegistering, fsm.RegistrationRegistered, fsm.RegistrationDeregistering, fsm.RegistrationFailed)
	e.counter("registration_attempts_total", "Attempts to register with an agent.", s.Registration.Attempts)
	e.counter("registration_failures_total", "Attempts to register that failed.", s.Registration.Failures)
	e.counter("heartbeats_sent_total", "Heartbeats sent.", s.Registration.Heartbeats.Sent)
	e.counter("heartbeats_failed_total", "Heartbeats that could not be sent.", s.Registration.Heartbeats.Failed)
	e.gauge("coordinated", "1 once an agent has told the collector to begin.", oneIf(s.Coordinated))
	e.timestamp("start_time_seconds", "When the daemon started, in Unix time.", s.StartedAt)
	e.gauge("config_version", "Version of the configuration in force.", float64(s.Config.Version))
}

func (e emitter) collector(s *State) {
	e.counter("cycles_total", "Complete cycles.", s.Cycle.Count)
	e.counter("failed_scans_total", "Snapshots that failed.", s.Totals.ScansFailed)
	e.counter("short_lived_total", "Processes that ended while their start was held back.", s.Totals.ShortLived)
	e.timestamp("last_cycle_time_seconds", "When the last cycle ended, in Unix time.", s.Cycle.LastAt)
	e.gauge("last_cycle_duration_seconds", "How long the last cycle took.", s.Cycle.DurationMS/1000)
	e.gauge("last_cycle_events", "Events that the last cycle made.", float64(s.Cycle.Events))
	e.gauge("table_processes", "Processes in the collector's table.", float64(s.Collector.TableSize))
	e.gauge("processes", "Processes that the last snapshot saw.", float64(s.Cycle.Processes))
	e.gauge("processes_vanished", "Processes gone between listing and reading.", float64(s.Cycle.Vanished))
	e.gauge("processes_hidden", "Processes listed of which the host shows nothing.", float64(s.Cycle.Hidden))
	e.gauge("processes_unreadable", "Processes with fields that could not be read.", float64(s.Cycle.Unreadable))
	e.gauge("processes_left_out", "Processes left out by max_processes.", float64(s.Cycle.LeftOut))
	e.gauge("processes_excluded", "Processes excluded.", float64(s.Cycle.Excluded))
	e.gauge("processes_held", "Processes younger than min_process_lifetime.", float64(s.Cycle.Held))
	e.gauge("interval_seconds", "Time between snapshots.", s.Interval.CurrentS, "which", "current")
	e.gauge("interval_seconds", "Time between snapshots.", s.Interval.ConfiguredS, "which", "configured")
	e.counter("events_total", "Events made durable.", s.Totals.Events)
	e.counter("kernel_events_total", "Events of the kernel that were read.", s.Totals.KernelEvents)
	e.counter("kernel_events_unmatched_total", "Events of the kernel about processes that no snapshot saw and that had started before.", s.Totals.KernelEventsUnmatched)
	lost := s.Totals.KernelEventsLost
	for _, kind := range []struct {
		name  string
		count uint64
	}{{"fork", lost.Forks}, {"exec", lost.Execs}, {"exit", lost.Exits}, {"other", lost.Other}} {
		e.counter("kernel_events_lost_total", "Events of the kernel that were lost.", kind.count, "kind", kind.name)
	}
	e.counter("loss_windows_total", "Times in which kernel events were lost.", s.Totals.LossWindows)
	e.gauge("kernel_events_waiting", "Events of the kernel that were read and are not durable yet.", float64(s.Collector.Waiting))
	e.counter("log_lines_lost_total", "Log lines that nobody took in time.", s.Totals.LogLinesLost)
	e.counter("notes_lost_total", "Events about the daemon itself that found no room during an outage.", s.Totals.NotesLost)
	e.counter("store_outages_total", "Times that the store went out of service.", s.Totals.Outages)
}

// hashes sends what there is only while hashes are computed.
func (e emitter) hashes(h *Hashes) {
	if h == nil {
		return
	}
	e.counter("hashed_files_total", "Executables read to their end.", h.Hashed)
	e.counter("hashed_bytes_total", "Bytes of executables read.", h.Bytes)
	e.counter("hash_hits_total", "Processes whose hash was known.", h.Hits)
	e.counter("hash_misses_total", "Processes that had to wait for their hash.", h.Misses)
	for _, skip := range h.Skips {
		e.counter("hash_skipped_total", "Processes without a hash, by reason.", skip.Count, "reason", skip.Reason)
	}
	e.counter("hash_deferred_total", "Processes and hashes that found no room and are asked for again.", h.Deferred)
	e.gauge("hash_cached", "Hashes kept.", float64(h.Cached))
	e.gauge("hash_waiting", "Processes that wait for their hash.", float64(h.Waiting))
	e.gauge("hash_stuck", "Calls to executables that have not returned.", float64(h.Stuck))
	e.gauge("hash_suspended", "1 while so many are stuck that no other file is touched.", oneIf(h.Suspended))
}

func (e emitter) store(s *Store) {
	e.gauge("store_in_service", "1 while the store takes events.", oneIf(s.InService))
	e.gauge("store_head", "Last durable sequence.", float64(s.Head))
	e.gauge("store_floor", "Lowest sequence kept.", float64(s.Floor))
	e.gauge("store_cursor", "Last acknowledged sequence.", float64(s.Cursor))
	e.gauge("store_backlog_events", "Events not yet acknowledged.", float64(s.BacklogEvents))
	e.gauge("store_backlog_bytes", "Bytes not yet acknowledged.", float64(s.BacklogBytes))
	e.gauge("store_backlog_budget_bytes", "Bytes that may wait before the oldest events are given up.", float64(s.BacklogBudget))
	e.counter("store_shed_total", "Events given up because the budget was used up.", s.Shed)
	e.gauge("store_bytes", "Bytes on disk.", float64(s.Bytes))
	e.counter("store_appends_total", "Durable appends.", s.Appends)
	e.counter("store_syncs_total", "Fsyncs.", s.Syncs)
	e.counter("store_removed_total", "Events removed by retention.", s.Removed)
	e.counter("store_reopens_total", "Returns to service.", s.Reopens)
}

// link sends what there is only in coordinated mode, and pressure.
func (e emitter) link(s *State) {
	e.gauge("pressure", "1 while the collector is slowed down.", oneIf(s.Pressure.On))
	e.counter("pressure_switches_total", "Times that pressure went on or off.", s.Pressure.Switches)
	for _, op := range s.RPC {
		e.counter("rpc_requests_total", "Requests of the agent.", op.Count, "operation", op.Operation)
		e.counter("rpc_errors_total", "Requests of the agent that were answered with an error.", op.Errors, "operation", op.Operation)
		e.counter("rpc_timeouts_total", "Requests of the agent whose deadline passed.", op.Timeouts, "operation", op.Operation)
	}
	if s.Link == nil || s.Delivery == nil {
		return
	}
	for name, c := range map[string]Connection{"control": s.Link.Control, "events": s.Link.Events} {
		e.gauge("link_connected", "1 while the connection to the broker stands.", oneIf(c.State == "connected"), "connection", name)
		e.counter("link_reconnects_total", "Times that the connection came back.", c.Reconnects, "connection", name)
	}
	e.counter("link_refused_total", "What the broker did not permit.", s.Link.Refused)
	e.delivery(s.Delivery)
}

func (e emitter) delivery(d *Delivery) {
	e.gauge("delivery_last_seq", "Last event that the agent's stream acknowledged.", float64(d.LastSeq))
	e.counter("delivered_total", "Events that the agent's stream acknowledged.", d.Delivered)
	e.counter("delivery_batches_total", "Batches acknowledged.", d.Batches)
	e.counter("delivery_duplicates_total", "Events that the stream had already.", d.Duplicates)
	e.counter("delivery_resumes_total", "Times that the agent was asked what it has.", d.Resumes)
	e.counter("delivery_full_total", "Times that the agent's stream had no room.", d.Full)
	e.counter("delivery_unknown_total", "Batches with an unknown outcome.", d.Unknown)
	e.gauge("delivery_in_flight_seconds", "How long the batch under way has been.", float64(d.InFlightMS)/1000)
	e.gauge("delivery_last_ack_seconds", "How long the last batch took to be acknowledged.", d.LastAckMS/1000)
}

func (e emitter) services(services []Service) {
	for _, s := range services {
		e.gauge("service_up", "1 while the service runs.", oneIf(s.State == "running"), "service", s.Path)
		e.counter("service_restarts_total", "Restarts of the service.", s.Restarts, "service", s.Path)
		e.counter("service_panics_total", "Panics of the service.", s.Panics, "service", s.Path)
	}
}

// machine sends one metric for each state, 1 for the present one.
func machine[S ~string](e emitter, name, present string, states ...S) {
	for _, state := range states {
		e.gauge("machine_state", "1 for the present state of the machine.", oneIf(string(state) == present), "machine", name, "state", string(state))
	}
}

func (e emitter) gauge(name, help string, value float64, labels ...string) {
	e.send(prometheus.GaugeValue, name, help, value, labels)
}

func (e emitter) counter(name, help string, value uint64, labels ...string) {
	e.send(prometheus.CounterValue, name, help, float64(value), labels)
}

// timestamp sends a moment; one that there was not is left out.
func (e emitter) timestamp(name, help string, at *time.Time) {
	if at != nil {
		e.gauge(name, help, float64(at.UnixNano())/1e9)
	}
}

// send sends one metric; labels are pairs of name and value.
func (e emitter) send(kind prometheus.ValueType, name, help string, value float64, labels []string) {
	names, values := make([]string, 0, len(labels)/2), make([]string, 0, len(labels)/2)
	for i := 0; i < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, strings.ToValidUTF8(labels[i+1], "\uFFFD"))
	}
	desc := prometheus.NewDesc("procmond_"+name, help, names, nil)
	e.ch <- prometheus.MustNewConstMetric(desc, kind, value, values...)
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
