"""The metrics that Prometheus scrapes.

Owns their names, labels and documentation, one row of `METRICS` each.  Must not know how anything
is counted or looked up: that is `Counters` and `Sources`; nor how it becomes rows: that is `rows`;
nor how it is written down: that is `exposition`.  Names are a contract with other people's
dashboards: add, never rename.
"""

import asyncio
import gc
import platform

from router import __version__
from router.observe.rows import (
    MetricInfo,
    copied,
    counts,
    differences,
    disk,
    histogram,
    looked_up,
    oldest,
    queues,
)

_PEER = ("direction", "local_ae", "peer")

METRICS: tuple[MetricInfo, ...] = (
    MetricInfo(
        "dcmrouter_build_info",
        "gauge",
        ("version", "python"),
        "Always 1; the labels tell which version runs on which Python.",
        lambda _c, _s: [((__version__, platform.python_version()), 1)],
    ),
    MetricInfo(
        "dcmrouter_instances_received_total",
        "counter",
        ("local_ae", "remote"),
        "Instances acknowledged with success, so durable on disk. `remote` is the name in the "
        "configuration, `unknown` for every peer that has none.",
        lambda c, _: [(labels, r.instances) for labels, r in c.received.children.items()],
    ),
    MetricInfo(
        "dcmrouter_bytes_received_total",
        "counter",
        ("local_ae", "remote"),
        "Bytes of the data sets of those instances.",
        lambda c, _: [(labels, r.bytes) for labels, r in c.received.children.items()],
    ),
    MetricInfo(
        "dcmrouter_associations",
        "gauge",
        _PEER,
        "Associations open now. `direction` is `in` for those that peers opened, `out` for ours.",
        lambda c, _: [(labels, a.open) for labels, a in c.associations.children.items()],
    ),
    MetricInfo(
        "dcmrouter_associations_total",
        "counter",
        _PEER,
        "Associations established since the start.",
        lambda c, _: [(labels, a.total) for labels, a in c.associations.children.items()],
    ),
    MetricInfo(
        "dcmrouter_association_rejects_total",
        "counter",
        ("reason",),
        "Incoming associations that we refused, by reason; each has a line in the log.",
        counts(lambda c: c.association_rejects),
    ),
    MetricInfo(
        "dcmrouter_association_aborts_total",
        "counter",
        ("direction", "by"),
        "Associations that ended with an A-ABORT or a broken connection. `by` is `local` when we "
        "ended it, `peer` when the other side did.",
        counts(lambda c: c.association_aborts),
    ),
    MetricInfo(
        "dcmrouter_association_cuts_total",
        "counter",
        ("reason",),
        "Of those, incoming ones that we ended: the peer was `idle`, `silent` or too `slow` in the "
        "middle of a message, left our answers `unread`, sent a data set that was `too_large`, "
        "broke the `protocol`, or we `stop`.",
        counts(lambda c: c.association_cuts),
    ),
    MetricInfo(
        "dcmrouter_connections_unused_total",
        "counter",
        ("reason",),
        "Connections that peers closed before they asked for an association: `silent` ones, such "
        "as health checks of load balancers, and those whose request was `incomplete`.",
        counts(lambda c: c.connections_unused),
    ),
    MetricInfo(
        "dcmrouter_association_failures_total",
        "counter",
        ("destination", "reason"),
        "Associations to a destination that could not be had or broke, by reason.",
        counts(lambda c: c.association_failures),
    ),
    MetricInfo(
        "dcmrouter_protocol_errors_total",
        "counter",
        ("kind",),
        "Violations of the DICOM upper layer or of DIMSE by peers, bytes of other protocols "
        "included.",
        counts(lambda c: c.protocol_errors),
    ),
    MetricInfo(
        "dcmrouter_store_seconds",
        "histogram",
        (),
        "Time from the command set of a C-STORE-RQ to its response: transfer, decision and "
        "commit, as the sender waits for it.",
        histogram(lambda c: c.store_seconds),
    ),
    MetricInfo(
        "dcmrouter_store_responses_total",
        "counter",
        ("status",),
        "C-STORE responses sent, by status in hexadecimal; 0000 is success, A700 is a full disk.",
        counts(lambda c: c.store_responses),
    ),
    MetricInfo(
        "dcmrouter_commit_seconds",
        "histogram",
        (),
        "Time of one group commit, the sync to disk included. A rise tells of a slow disk.",
        histogram(lambda c: c.commit_seconds),
    ),
    MetricInfo(
        "dcmrouter_commit_batch_instances",
        "histogram",
        (),
        "Instances that one group commit made durable together.",
        histogram(lambda c: c.commit_batch_instances),
    ),
    MetricInfo(
        "dcmrouter_deliveries_total",
        "counter",
        ("destination", "outcome"),
        "Deliveries by how they ended: `delivered`, `warning` (delivered, with a warning "
        "status), `deferred` (will be tried again) or `dead` (waits for a person).",
        counts(lambda c: c.deliveries),
    ),
    MetricInfo(
        "dcmrouter_delivery_attempts_total",
        "counter",
        ("destination",),
        "C-STORE requests sent.",
        counts(lambda c: c.delivery_attempts),
    ),
    MetricInfo(
        "dcmrouter_delivery_seconds",
        "histogram",
        ("destination",),
        "Time from the receipt of an instance to its delivery.",
        lambda c, _: [(labels, copied(h)) for labels, h in c.delivery_seconds.children.items()],
    ),
    MetricInfo(
        "dcmrouter_bytes_sent_total",
        "counter",
        ("destination",),
        "Bytes of the data sets that were delivered.",
        counts(lambda c: c.sent),
    ),
    MetricInfo(
        "dcmrouter_queue_instances",
        "gauge",
        ("destination", "state"),
        "Deliveries by destination and state. `ready` waits to be sent, `held` for an operator to "
        "release it, `dead` for one to decide.",
        queues(lambda _, q: q.count),
    ),
    MetricInfo(
        "dcmrouter_queue_bytes",
        "gauge",
        ("destination", "state"),
        "Bytes of the data sets of those deliveries.",
        queues(lambda _, q: q.bytes),
    ),
    MetricInfo(
        "dcmrouter_queue_oldest_seconds",
        "gauge",
        ("destination", "state"),
        "Age of the oldest of those deliveries since its receipt; absent when there is none. "
        "The one to alert on.",
        queues(oldest),
    ),
    MetricInfo(
        "dcmrouter_gated_instances",
        "gauge",
        ("destination",),
        "Of the deliveries in state `ready`, those that wait for their study or series to be "
        "complete or for a window of their schedule; absent when there is none.",
        looked_up(lambda s: [((q.destination,), q.gated) for q in s.queues if q.gated]),
    ),
    MetricInfo(
        "dcmrouter_destination_up",
        "gauge",
        ("destination",),
        "1 when the destination accepted its last association, 0 while it is probed.",
        looked_up(lambda s: [((d.name,), 1 if d.up else 0) for d in s.destinations]),
    ),
    MetricInfo(
        "dcmrouter_destination_paused",
        "gauge",
        ("destination",),
        "1 while an operator has paused the destination.",
        looked_up(lambda s: [((d.name,), 1 if d.paused else 0) for d in s.destinations]),
    ),
    MetricInfo(
        "dcmrouter_destination_changes_total",
        "counter",
        ("destination", "to"),
        "How often a destination went `down` or came back `up`; a high rate tells of a flapping "
        "one.",
        counts(lambda c: c.destination_changes),
    ),
    MetricInfo(
        "dcmrouter_diverted_total",
        "counter",
        ("destination", "to"),
        "Deliveries that waited for a destination and were moved to another that may have them, "
        "since it was down; or back, since a better one is up again.",
        counts(lambda c: c.diverted),
    ),
    MetricInfo(
        "dcmrouter_proof_requests_total",
        "counter",
        ("destination", "outcome"),
        "Times that a destination was asked whether it keeps what it took: `asked`, `refused` (it "
        "would not be) or `failed` (it could not be).",
        counts(lambda c: c.commitments_asked),
    ),
    MetricInfo(
        "dcmrouter_proofs_total",
        "counter",
        ("destination", "outcome"),
        "What became of deliveries that a destination had to commit: `committed`, `resent` (it has "
        "not got them), `dead` or `accepted` (it is not asked any more).",
        counts(lambda c: c.commitments),
    ),
    MetricInfo(
        "dcmrouter_commitment_requests_total",
        "counter",
        ("remote", "outcome"),
        "Requests for storage commitment that remotes made of us: `asked`, `refused`, `reported` "
        "when they were told, `retried` for each report in vain, `given_up` when they never were.",
        counts(lambda c: c.promises),
    ),
    MetricInfo(
        "dcmrouter_commitment_instances_total",
        "counter",
        ("remote", "outcome"),
        "Instances of those requests: `committed`, or `failed`.",
        counts(lambda c: c.promised),
    ),
    MetricInfo(
        "dcmrouter_held_instances",
        "gauge",
        (),
        "Instances that no rule matched or that were quarantined; they wait for an operator.",
        looked_up(lambda s: [((), s.held_instances)]),
    ),
    MetricInfo(
        "dcmrouter_dead_instances",
        "gauge",
        (),
        "Deliveries that failed for good and wait for a person: an instance counts once for each "
        "destination that it failed at.",
        looked_up(lambda s: [((), s.dead_instances)]),
    ),
    MetricInfo(
        "dcmrouter_spool_bytes",
        "gauge",
        (),
        "Disk space that the spool takes, spare segments included.",
        looked_up(lambda s: [((), s.disk.spool_bytes)] if s.disk else ()),
    ),
    MetricInfo(
        "dcmrouter_spool_spare_bytes",
        "gauge",
        (),
        "Of that, room in spare segments: what the spool needed at its fullest is kept for reuse.",
        looked_up(lambda s: [((), s.disk.spare_bytes)] if s.disk else ()),
    ),
    MetricInfo(
        "dcmrouter_spool_free_bytes",
        "gauge",
        (),
        "Free space on the disk of the spool.",
        looked_up(lambda s: [((), s.disk.free_bytes)] if s.disk else ()),
    ),
    MetricInfo(
        "dcmrouter_spool_low",
        "gauge",
        (),
        "1 while the spool lacks room and C-STORE is answered A700.",
        looked_up(lambda s: [((), 1 if s.disk.low else 0)] if s.disk else ()),
    ),
    MetricInfo(
        "dcmrouter_spool_used_ratio",
        "gauge",
        (),
        "Share of the disk, or of max_size, in use, without spare segments; only with a high mark.",
        looked_up(lambda s: disk(s, lambda d: d.share)),
    ),
    MetricInfo(
        "dcmrouter_purged_instances_total",
        "counter",
        ("why",),
        "Settled instances that left the spool: `age` (their time was over), `mark` (the high "
        "mark), `room` (nothing more could come in), `archived` (moved to the archive).",
        counts(lambda c: c.purged),
    ),
    MetricInfo(
        "dcmrouter_purged_bytes_total",
        "counter",
        ("why",),
        "Bytes of the data sets of those instances.",
        counts(lambda c: c.purged_bytes),
    ),
    MetricInfo(
        "dcmrouter_archive_failed",
        "gauge",
        (),
        "1 while the archive, or a folder in it, cannot be written to, and settled instances stay "
        "in the spool; only with an archive.",
        looked_up(lambda s: disk(s, lambda d: d.archive_failed)),
    ),
    MetricInfo(
        "dcmrouter_unindexed_instances",
        "gauge",
        (),
        "Instances that are safe in the spool but not in the index yet, and so in no queue. A few "
        "while instances stream in; more, and lasting, means that the index cannot be written.",
        looked_up(lambda s: [((), s.unindexed_instances)]),
    ),
    MetricInfo(
        "dcmrouter_account_difference",
        "gauge",
        ("scope",),
        "Instances received less those accounted for, `all` of them and by each scope that does "
        "not add up. Anything but 0 that stays is a bug: report it.",
        looked_up(differences),
    ),
    MetricInfo(
        "dcmrouter_config_info",
        "gauge",
        ("rules",),
        "Always 1; the label is the version of the rules in force.",
        lambda c, _: [((c.config.rules,), 1)],
    ),
    MetricInfo(
        "dcmrouter_config_applied_timestamp_seconds",
        "gauge",
        (),
        "When the configuration in force took effect, in seconds since the epoch.",
        lambda c, _: [((), c.config.applied_at)],
    ),
    MetricInfo(
        "dcmrouter_config_reload_success",
        "gauge",
        (),
        "0 while the last reload was refused: what lies on the disk is not in force. Else 1.",
        lambda c, _: [((), 0 if c.config.refused_last else 1)],
    ),
    MetricInfo(
        "dcmrouter_config_reloads_total",
        "counter",
        ("outcome",),
        "Reloads since the start that were `applied` or `refused`.",
        counts(lambda c: c.config.reloads),
    ),
    MetricInfo(
        "dcmrouter_config_version_failures_total",
        "counter",
        (),
        "Configurations that could not be kept as a version, for want of room or of a sound disk. "
        "They took effect, or were refused, all the same.",
        lambda c, _: [((), c.config.version_failures.value)],
    ),
    MetricInfo(
        "dcmrouter_list_values",
        "gauge",
        ("list",),
        "Values in force of a list that rules look into.",
        lambda c, _: [((name,), count) for name, (count, _failed) in c.config.lists.items()],
    ),
    MetricInfo(
        "dcmrouter_list_failed",
        "gauge",
        ("list",),
        "1 while the file of a list cannot be read: the values read before stay in force.",
        lambda c, _: [((name,), int(failed)) for name, (_count, failed) in c.config.lists.items()],
    ),
    MetricInfo(
        "dcmrouter_event_loop_stall_seconds",
        "histogram",
        (),
        "How late a timer on the event loop fired, sampled fifty times a second: what any event "
        "waits before it is looked at.",
        histogram(lambda c: c.event_loop_stall_seconds),
    ),
    MetricInfo(
        "dcmrouter_event_loop_stall_max_seconds",
        "gauge",
        (),
        "The latest that timer was since the start.",
        lambda c, _: [((), c.event_loop_stall_seconds.max)],
    ),
    MetricInfo(
        "dcmrouter_tasks",
        "gauge",
        (),
        "Tasks of the event loop: a few for each association and destination. It falls again "
        "when they have ended.",
        lambda _c, _s: [((), len(asyncio.all_tasks()))],
    ),
    MetricInfo(
        "dcmrouter_gc_collections_total",
        "counter",
        ("generation",),
        "Runs of the garbage collector; those of generation 2 look at everything.",
        lambda _c, _s: [((str(n),), s["collections"]) for n, s in enumerate(gc.get_stats())],
    ),
    MetricInfo(
        "dcmrouter_log_lines_total",
        "counter",
        ("level",),
        "Lines logged, by level; `suppressed` are repetitions that were counted instead, "
        "`dropped` those that standard error did not take in time.",
        counts(lambda c: c.log_lines),
    ),
    MetricInfo(
        "dcmrouter_scrape_errors_total",
        "counter",
        (),
        "Scrapes in which queues, destinations and disk could not be looked up and were left out.",
        lambda c, _: [((), c.scrape_errors.value)],
    ),
)
