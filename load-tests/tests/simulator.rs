//! The LocalAI simulator against recorded answers of LocalAI (`fixtures/localai`): same status, same kind, same shape; and the
//! behaviour that load tests rest on: cold load, one worker, dead window, cancelled requests, seeded times.

#[path = "simulator/behaviour.rs"]
mod behaviour;
#[path = "simulator/recorded.rs"]
mod recorded;
#[path = "simulator/shapes.rs"]
mod shapes;

use std::path::PathBuf;

use load_tests::localai_sim::Simulator;
use load_tests::localai_sim::settings::SimulatorSettings;
use reqwest::multipart::{Form, Part};

/// A simulator that is so fast that its delays do not matter.
fn fast() -> SimulatorSettings {
    SimulatorSettings { speed: 1_000.0, ..SimulatorSettings::default() }
}

fn start(settings: SimulatorSettings) -> Simulator {
    relay_runtime::tls::install_provider();
    Simulator::start(settings).expect("the simulator starts")
}

fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(path)
}

fn speech() -> Vec<u8> {
    std::fs::read(fixture("audio/speech.wav")).expect("the fixture is there")
}

/// A transcription form with this file.
fn form(file: Vec<u8>, model: &str) -> Form {
    Form::new().part("file", Part::bytes(file).file_name("speech.wav")).text("model", model.to_owned())
}
