//! The coordinator's metrics, by name. All begin with `relay_cluster_`; `/metrics` shows them.

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use relay_protocol::cluster::BackendState;

use crate::registry::View;
use crate::registry::view::NodeState;

/// Says what each metric means; once, after the recorder is installed.
pub fn describe() {
    describe_gauge!("relay_cluster_nodes", "Nodes by state: ready, not_ready, draining, lost.");
    describe_gauge!("relay_cluster_sessions", "Open sessions on nodes that are not lost.");
    describe_gauge!(
        "relay_cluster_node_weight_sessions",
        "What a node carries, in sessions: new ones go where it is least."
    );
    describe_gauge!("relay_cluster_slots", "Requests that a backend may have at a time.");
    describe_gauge!("relay_cluster_slots_granted", "Slots of a backend that nodes may believe to have.");
    describe_gauge!("relay_cluster_slots_in_use", "Slots of a backend in use by the nodes' last word.");
    describe_gauge!("relay_cluster_backend_healthy", "1 if the backend's last probe succeeded, else 0.");
    describe_gauge!("relay_cluster_backend_drained", "1 if the backend gets no new requests, else 0.");
    describe_gauge!("relay_cluster_name_backends", "Backends that a DNS name leads to.");
    describe_gauge!("relay_cluster_name_well", "0 if something is wrong with a DNS name's last answer, else 1.");
    describe_counter!("relay_cluster_lookups_total", "Look-ups of DNS names by outcome: found, nothing, failed.");
    describe_histogram!("relay_cluster_probe_seconds", "Duration of a backend's probe in seconds.");
    describe_counter!("relay_cluster_probes_total", "Probes by backend and outcome.");
    describe_counter!(
        "relay_cluster_heartbeats_total",
        "Heartbeats by outcome: taken, stale, invalid, refused, not_leader."
    );
    describe_counter!("relay_cluster_placements_total", "Placements by outcome: placed, no_ready_node.");
    describe_counter!("relay_cluster_audit_written_total", "Entries written to the audit topic.");
    describe_counter!(
        "relay_cluster_audit_dropped_total",
        "Entries lost because the audit queue was full or at the end."
    );
    describe_gauge!("relay_cluster_leader", "1 if this coordinator leads, else 0.");
    describe_gauge!("relay_cluster_leader_incarnation", "Incarnation of the leader that is known; -1 if none is.");
    describe_counter!(
        "relay_cluster_elections_total",
        "Turns of this coordinator's elections by outcome: won, beaten, displaced, unconfirmed, resigned."
    );
    describe_view();
}

/// Shows whether this coordinator leads.
pub fn leads(leads: bool) {
    gauge!("relay_cluster_leader").set(if leads { 1.0 } else { 0.0 });
}

/// Shows which leader is known.
pub fn leader(incarnation: Option<u64>) {
    gauge!("relay_cluster_leader_incarnation").set(incarnation.map_or(-1.0, |incarnation| incarnation as f64));
}

/// Counts a turn of an election.
pub fn election(outcome: &'static str) {
    counter!("relay_cluster_elections_total", "outcome" => outcome).increment(1);
}

/// Shows a snapshot.
pub fn show(view: &View, now_ms: u64) {
    for state in NodeState::ALL {
        gauge!("relay_cluster_nodes", "state" => state.as_str()).set(view.nodes_in(state, now_ms));
    }
    gauge!("relay_cluster_sessions").set(view.cluster(now_ms).sessions);
    for (node, weight) in view.weights(now_ms) {
        gauge!("relay_cluster_node_weight_sessions", "node" => node.to_owned()).set(weight as f64 / 1_000.0);
    }
    for backend in &view.backends {
        let name = backend.url.clone();
        gauge!("relay_cluster_slots", "backend" => name.clone()).set(backend.slots);
        gauge!("relay_cluster_slots_granted", "backend" => name.clone()).set(backend.slots_granted);
        gauge!("relay_cluster_slots_in_use", "backend" => name.clone()).set(backend.slots_in_use);
        let is_drained = backend.state != BackendState::Serving;
        gauge!("relay_cluster_backend_drained", "backend" => name.clone()).set(f64::from(u8::from(is_drained)));
        gauge!("relay_cluster_backend_healthy", "backend" => name).set(f64::from(u8::from(backend.healthy)));
    }
}

/// Shows a backend that is listed no more as having nothing.
pub fn gone(backend: &str) {
    for gauge in ["slots", "slots_granted", "slots_in_use", "backend_healthy", "backend_drained"] {
        gauge!(format!("relay_cluster_{gauge}"), "backend" => backend.to_owned()).set(0.0);
    }
}

/// Shows a node that is listed no more as carrying nothing.
pub fn node_gone(node: &str) {
    gauge!("relay_cluster_node_weight_sessions", "node" => node.to_owned()).set(0.0);
}

/// Counts a look-up of a DNS name.
pub fn lookup(name: &Arc<str>, outcome: &'static str) {
    let name: metrics::SharedString = name.clone().into();
    counter!("relay_cluster_lookups_total", "name" => name, "outcome" => outcome).increment(1);
}

/// Shows what a DNS name leads to.
pub fn name(name: &str, backends: u32, is_well: bool) {
    gauge!("relay_cluster_name_backends", "name" => name.to_owned()).set(backends);
    gauge!("relay_cluster_name_well", "name" => name.to_owned()).set(f64::from(u8::from(is_well)));
}

/// Counts a probe.
pub fn probe(backend: &Arc<str>, took: Duration, outcome: &'static str) {
    let name: metrics::SharedString = backend.clone().into();
    histogram!("relay_cluster_probe_seconds", "backend" => name.clone()).record(took.as_secs_f64());
    counter!("relay_cluster_probes_total", "backend" => name, "outcome" => outcome).increment(1);
}

/// Counts a heartbeat.
pub fn heartbeat(outcome: &'static str) {
    counter!("relay_cluster_heartbeats_total", "outcome" => outcome).increment(1);
}

/// Counts a placement.
pub fn placement(outcome: &'static str) {
    counter!("relay_cluster_placements_total", "outcome" => outcome).increment(1);
}

/// Counts entries of the audit trail that were written.
pub fn audit_written(entries: u64) {
    counter!("relay_cluster_audit_written_total").increment(entries);
}

/// Counts entries of the audit trail that are lost.
pub fn audit_dropped(entries: u64) {
    counter!("relay_cluster_audit_dropped_total").increment(entries);
}

fn describe_view() {
    describe_gauge!("relay_cluster_view_rows", "Jobs in the job view.");
    describe_gauge!(
        "relay_cluster_view_lag_events",
        "Records of the events' topic that the job view has not read yet."
    );
    describe_counter!("relay_cluster_view_events_total", "Records that the job view has taken in.");
    describe_counter!("relay_cluster_view_unreadable_total", "Records of the events' topic that are no events.");
    describe_counter!("relay_cluster_view_dropped_total", "Jobs that left the view by reason: retention, rows_max.");
    describe_counter!("relay_cluster_view_rebuilds_total", "Times that the view was thrown away: damaged, offsets.");
    describe_counter!("relay_cluster_view_errors_total", "Times that the view could not go on and tried again.");
    describe_counter!("relay_cluster_view_cancels_total", "Jobs that were asked to end by filter.");
}

/// Shows how many jobs the view has.
pub fn view_rows(rows: u64) {
    gauge!("relay_cluster_view_rows").set(rows as f64);
}

/// Shows how many records the view is behind.
pub fn view_lag(events: u64) {
    gauge!("relay_cluster_view_lag_events").set(events as f64);
}

/// Counts records that the view took in.
pub fn view_events(records: u64) {
    counter!("relay_cluster_view_events_total").increment(records);
}

/// Counts a record that is no event.
pub fn view_unreadable() {
    counter!("relay_cluster_view_unreadable_total").increment(1);
}

/// Counts jobs that left the view: too old, or too many.
pub fn view_dropped(old: u64, surplus: u64) {
    counter!("relay_cluster_view_dropped_total", "reason" => "retention").increment(old);
    counter!("relay_cluster_view_dropped_total", "reason" => "rows_max").increment(surplus);
}

/// Counts a view that was thrown away.
pub fn view_rebuilt(reason: &'static str) {
    counter!("relay_cluster_view_rebuilds_total", "reason" => reason).increment(1);
}

/// Counts a time that the view could not go on.
pub fn view_error() {
    counter!("relay_cluster_view_errors_total").increment(1);
}

/// Counts jobs that were asked to end by filter.
pub fn bulk_cancelled(jobs: u64) {
    counter!("relay_cluster_view_cancels_total").increment(jobs);
}
