//! `dlq`: dead letters: what there is, and what is done with them.

mod args;
mod letters;

use std::process::ExitCode;

pub(crate) use args::DlqCommand;

use crate::output::Failure;
use crate::settings::ClientSettings;

/// Runs the command.
pub(crate) async fn run(settings: &ClientSettings, command: &DlqCommand) -> Result<ExitCode, Failure> {
    match command {
        DlqCommand::List(args) => letters::list(settings, args).await,
        DlqCommand::Show(args) => letters::show(settings, args).await,
        DlqCommand::Redrive(args) => letters::act(settings, args, "redrive").await,
        DlqCommand::Drop(args) => letters::act(settings, args, "drop").await,
    }
}
