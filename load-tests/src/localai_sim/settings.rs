//! What a simulator is like: its models, their speeds, its limits.

use std::time::Duration;

/// What a model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Speech to text.
    Transcript,
    /// Text to speech.
    Speech,
    /// Voice activity.
    Vad,
    /// Chat completion.
    Chat,
    /// Text to vectors.
    Embedding,
    /// Text to image.
    Image,
}

/// One model.
#[derive(Debug, Clone)]
pub struct ModelSettings {
    /// Its name.
    pub id: String,
    /// What it does.
    pub kind: Kind,
    /// How long loading takes.
    pub load: Duration,
    /// Work of each request, in seconds, apart from its input.
    pub base_s: f64,
    /// Seconds of work for each unit of input: a second of audio, a word of text, an image.
    pub per_unit_s: f64,
    /// Sigma of the log-normal factor on the work of a request; 0 for none. The factor's mean is 1.
    pub spread: f64,
    /// Workers: requests that run at a time. LocalAI has one unless told otherwise; the queue before it is unbounded.
    pub workers: usize,
    /// Requests at a time that the server lets in (chat only, as `limits.max_concurrent`); 0 for any number.
    pub admitted_max: u64,
    /// Whether loading always fails.
    pub load_fails: bool,
}

impl ModelSettings {
    /// A model with one worker, a load time of 2 s and work of a tenth of a second per unit, without spread.
    pub fn new(id: &str, kind: Kind) -> Self {
        Self {
            id: id.to_owned(),
            kind,
            load: Duration::from_secs(2),
            base_s: 0.0,
            per_unit_s: if matches!(kind, Kind::Chat | Kind::Embedding | Kind::Speech) { 0.01 } else { 0.1 },
            spread: 0.0,
            workers: 1,
            admitted_max: 0,
            load_fails: false,
        }
    }
}

/// One simulated server.
#[derive(Debug, Clone)]
pub struct SimulatorSettings {
    /// Where it listens: HOST:PORT, port 0 for any.
    pub listen: String,
    /// Its models.
    pub models: Vec<ModelSettings>,
    /// How much faster than written it loads and works. Time-outs and windows below are not scaled.
    pub speed: f64,
    /// Seed of the service times.
    pub seed: u64,
    /// How long a model whose worker was killed answers with instant failures.
    pub dead_window: Duration,
    /// How long a model that failed to load is not tried again; doubles up to five minutes.
    pub load_cooldown: Duration,
    /// Largest request body, in bytes.
    pub upload_bytes_max: usize,
    /// Requests to models at a time (`LOCALAI_MAX_CONCURRENT_BACKEND_REQUESTS`); 0 for any number.
    pub concurrent_requests_max: u64,
    /// The key that requests must show; `None` for none.
    pub api_key: Option<String>,
}

impl SimulatorSettings {
    /// A server with one model, `whisper-1`, that is loaded at once and works on each request for `work`.
    pub fn transcriber(work: Duration) -> Self {
        let model = ModelSettings {
            load: Duration::ZERO,
            base_s: work.as_secs_f64(),
            per_unit_s: 0.0,
            ..ModelSettings::new("whisper-1", Kind::Transcript)
        };
        Self { models: vec![model], ..Self::default() }
    }
}

impl Default for SimulatorSettings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:0".to_owned(),
            models: default_models(),
            speed: 1.0,
            seed: 1,
            dead_window: Duration::from_secs(30),
            load_cooldown: Duration::from_secs(10),
            upload_bytes_max: 15 << 20,
            concurrent_requests_max: 0,
            api_key: None,
        }
    }
}

/// The models of the recorded server, and one each for what it had no model for.
pub fn default_models() -> Vec<ModelSettings> {
    let model = ModelSettings::new;
    vec![
        model("whisper-1", Kind::Transcript),
        ModelSettings { per_unit_s: 1.0, ..model("x-slow", Kind::Transcript) },
        ModelSettings { load_fails: true, ..model("x-broken", Kind::Transcript) },
        model("tts-1", Kind::Speech),
        model("vad", Kind::Vad),
        model("lab-chat", Kind::Chat),
        ModelSettings { admitted_max: 1, ..model("x-chat-limited", Kind::Chat) },
        model("embed-1", Kind::Embedding),
        ModelSettings { per_unit_s: 1.0, ..model("image-1", Kind::Image) },
    ]
}
