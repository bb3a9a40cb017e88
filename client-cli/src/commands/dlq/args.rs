//! Arguments of `dlq`.

use clap::{Args, Subcommand};
use relay_protocol::Task;
use relay_protocol::dead_letter::{LetterFilter, LetterId, LetterName};

use crate::cli::past_time;

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum DlqCommand {
    /// List dead letters
    List(ListArgs),
    /// Show one with its attempts and its job
    Show(ShowArgs),
    /// Submit the jobs of letters anew
    Redrive(ActArgs),
    /// Take letters off the list; they cannot be redriven any more
    Drop(ActArgs),
}

impl DlqCommand {
    /// Whether programs read what it prints.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::List(args) => args.json,
            Self::Show(args) => args.json,
            Self::Redrive(args) | Self::Drop(args) => args.json,
        }
    }
}

/// Which letters.
#[derive(Debug, Args)]
pub(crate) struct FilterArgs {
    /// Of this lane
    #[arg(long)]
    lane: Option<String>,
    /// Of this task
    #[arg(long, value_parser = |text: &str| text.parse::<Task>().map_err(|unknown| unknown.to_string()))]
    task: Option<Task>,
    /// With this error code, at the end or of an attempt
    #[arg(long)]
    code: Option<String>,
    /// Dead since this time (RFC 3339, or 24h ago)
    #[arg(long, value_parser = past_time, value_name = "TIME")]
    since: Option<u64>,
    /// Dead before this time (RFC 3339, or 24h ago)
    #[arg(long, value_parser = past_time, value_name = "TIME")]
    until: Option<u64>,
    /// Of this tenant; others than your own need the scope admin
    #[arg(long)]
    tenant: Option<String>,
}

impl FilterArgs {
    /// The filter as the relay takes it.
    pub(crate) fn filter(&self) -> LetterFilter {
        LetterFilter {
            lane: self.lane.clone(),
            task: self.task,
            code: self.code.clone(),
            since: self.since,
            until: self.until,
            tenant: self.tenant.clone(),
        }
    }
}

/// Arguments of `dlq list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// open, redriving, redriven, dropped or all; without it open and redriving
    #[arg(long)]
    pub(crate) state: Option<String>,
    /// Letters at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    pub(crate) limit: u64,
    /// Go on behind this letter
    #[arg(long, value_parser = |text: &str| text.parse::<LetterId>(), value_name = "LETTER")]
    pub(crate) cursor: Option<LetterId>,
    /// Print one letter as JSON a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `dlq show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Letter, as the list names it, or id of its job
    #[arg(value_parser = |text: &str| text.parse::<LetterName>())]
    pub(crate) letter: LetterName,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `dlq redrive` and `dlq drop`.
#[derive(Debug, Args)]
pub(crate) struct ActArgs {
    /// Letters, as the list names them, or ids of their jobs; without any the filter says which
    #[arg(value_parser = |text: &str| text.parse::<LetterName>(), value_name = "LETTER")]
    pub(crate) letters: Vec<LetterName>,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Every letter that you may see
    #[arg(long, conflicts_with = "letters")]
    pub(crate) everything: bool,
    /// Only tell what would happen
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print one result as JSON a line
    #[arg(long)]
    pub(crate) json: bool,
}
