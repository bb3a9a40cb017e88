//! Partitions that come to this node, and go.

use actix::Context;
use relay_log::port::{Assignment, Committed, TopicPartition};
use relay_protocol::topics;
use tokio_util::sync::CancellationToken;

use super::Lane;
use crate::intake::control::{self, Followed};
use crate::intake::dedup_topic::{self, Reading};
use crate::intake::progress::Progress;
use crate::intake::side_topic::{self, FollowedSides};

/// Characters of metadata that is not ours that the log shows.
const METADATA_SHOWN_CHARS: usize = 64;

impl Lane {
    pub(super) fn assigned(&mut self, assignments: Vec<Assignment>, ctx: &mut Context<Self>) {
        let (now, mut control, mut ended) = (self.now_ms(), Vec::new(), Vec::new());
        let mut sides = Vec::new();
        for assignment in assignments {
            let (partition, epoch) = (assignment.at.partition, assignment.epoch);
            if let Some(committed) = &assignment.committed {
                self.retention.committed(partition, Progress::unpack(committed).done_below());
                self.look_at_metadata(partition, committed);
            }
            let (since_ms, effects) = self.core.assigned(assignment, now);
            self.carry_out(effects, ctx);
            let (control_stop, stop) = (CancellationToken::new(), CancellationToken::new());
            // What follows the control topic for kept runs is not needed beside it.
            let earlier =
                [self.controls.insert(partition, control_stop.clone()), self.beside.insert(partition, stop.clone())];
            earlier.into_iter().flatten().for_each(|earlier| earlier.cancel());
            let starts = self.core.side_starts(partition);
            sides.push(FollowedSides { partition, epoch, starts, stop: stop.clone() });
            let followed = |topic, doubted, stop| {
                let at = TopicPartition::new(topic, partition);
                Followed { at, epoch, since_ms, doubted, stop }
            };
            control.push(followed(topics::control(&self.settings.lane), Vec::new(), control_stop));
            ended.push(followed(topics::dedup(&self.settings.lane), self.core.doubted(partition), stop));
        }
        let (log, clock) = (self.context.log.clone(), self.context.clock.clone());
        let reading = Reading { log: log.clone(), clock, entries_max: self.settings.dedup_entries_max };
        let lane = self.settings.lane.clone();
        actix::spawn(side_topic::follow(log.clone(), lane, sides, self.said.clone()));
        actix::spawn(control::follow(log, control, self.said.clone()));
        actix::spawn(dedup_topic::read(reading, ended, self.said.clone()));
    }

    /// Says so if the offset was committed by somebody else, as after a reset of the group's offsets by a tool.
    fn look_at_metadata(&self, partition: u32, committed: &Committed) {
        if !Progress::is_foreign(committed) {
            return;
        }
        let lane = self.settings.lane.clone();
        let metadata: String = committed.metadata.chars().take(METADATA_SHOWN_CHARS).collect();
        tracing::warn!(
            lane,
            partition,
            offset = committed.next,
            metadata,
            "the metadata of the committed offset is none of ours or damaged, and is ignored: jobs behind the offset that had ended \
             are looked at again"
        );
        metrics::counter!("relay_commit_metadata_ignored_total", "lane" => lane).increment(1);
    }

    pub(super) fn release(&mut self, partition: u32) {
        self.retention.released(partition);
        if let Some(stop) = self.beside.remove(&partition) {
            stop.cancel();
        }
        self.follow_no_longer(partition);
        for (partitions, _) in &mut self.releases {
            partitions.retain(|waiting| *waiting != partition);
        }
        self.releases.retain(|(partitions, _)| !partitions.is_empty());
    }
}
