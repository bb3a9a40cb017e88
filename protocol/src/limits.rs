//! Every limit of the protocol: name, unit, value. Both ends enforce them; settings may only lower them.

/// Bytes of the fixed frame header.
pub const HEADER_BYTES: usize = 12;
/// Largest head of a frame, in bytes: what its u16 length can say.
pub const HEAD_BYTES_MAX: usize = 65_535;
/// Largest payload of a frame, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1_048_576;
/// Largest frame, in bytes.
pub const FRAME_BYTES_MAX: usize = HEADER_BYTES + HEAD_BYTES_MAX + PAYLOAD_BYTES_MAX;
/// Largest input that may travel inside a record, in bytes; anything larger is uploaded first.
pub const INLINE_BYTES_MAX: usize = 262_144;
/// Largest result that a terminal event holds itself, in bytes of JSON; anything larger is stored and referenced.
pub const RESULT_BYTES_MAX: usize = 262_144;
/// Largest upload unless configured lower, in bytes (2 GiB).
pub const UPLOAD_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// Payload of one upload or download chunk, in bytes.
pub const TRANSFER_CHUNK_BYTES: usize = 262_144;
/// Bytes that may be sent beyond the last acknowledged one in an upload.
pub const UPLOAD_WINDOW_BYTES: u64 = 4 * 1_048_576;
/// Time from the opened connection to a complete `hello`, in milliseconds.
pub const HELLO_TIMEOUT_MS: u64 = 5_000;
/// Silence after which an end sends a ping, in milliseconds.
pub const PING_INTERVAL_MS: u64 = 10_000;
/// Silence after which a session is closed, in milliseconds.
pub const IDLE_TIMEOUT_MS: u64 = 30_000;
/// Jobs that one session may have unanswered (submitted or watched) at a time.
pub const SESSION_JOBS_MAX: usize = 1_024;
/// Largest JSON text of a job's parameters, in bytes.
pub const PARAMS_BYTES_MAX: usize = 32_768;
/// Longest name of a tenant, lane, model, stream, subject or file, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Longest message of an error, in bytes; longer ones are cut.
pub const ERROR_MESSAGE_BYTES_MAX: usize = 2_048;
/// Longest URL of an input, in bytes.
pub const URL_BYTES_MAX: usize = 8_192;
/// Longest path of an object in the store, in bytes.
pub const OBJECT_PATH_BYTES_MAX: usize = 1_024;
/// Longest media type, in bytes.
pub const MEDIA_TYPE_BYTES_MAX: usize = 255;
/// Longest W3C trace context, in bytes; the version in use has 55.
pub const TRACEPARENT_BYTES_MAX: usize = 128;
/// Attempts of one job, unless its lane says fewer.
pub const ATTEMPTS_MAX: u32 = 16;
/// Highest number of an attempt that a record may tell of; it keeps an event's seq below 2^53.
pub const ATTEMPT_NUMBER_MAX: u32 = 1_048_576;
/// Hops recorded in one job.
pub const HOPS_MAX: usize = 16;

/// Whether `name` can name a model, stream, subject or file: 1 to [`NAME_BYTES_MAX`] bytes of UTF-8 without control
/// characters (Unicode category Cc). A tenant obeys [`is_tenant`], a lane [`is_lane`].
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control)
}

/// Whether `tenant` can name a tenant: a name without `/`, which ends the tenant in a record's key
/// ([`crate::partition::job_key`]); with it two tenants could have the same key.
pub fn is_tenant(tenant: &str) -> bool {
    is_name(tenant) && !tenant.contains('/')
}

/// Whether `path` can name an object in the store: 1 to [`OBJECT_PATH_BYTES_MAX`] bytes, relative, parts between single
/// `/`, none of them `.` or `..`, no backslash and no control characters.
pub fn is_object_path(path: &str) -> bool {
    path.len() <= OBJECT_PATH_BYTES_MAX
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
        && !path.chars().any(|c| c == '\\' || c.is_control())
}

/// Whether `text` is a SHA-256 digest as records write it: 64 hex digits in lower case.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Whether `lane` can be part of a topic's name: ASCII letters, digits, `-` and `_`, at most 64 bytes; then `.interactive`
/// or `.batch` if it is read beside another lane ([`crate::topics::priority_lane`]).
pub fn is_lane(lane: &str) -> bool {
    let (lane, _) = crate::topics::base_lane(lane);
    !lane.is_empty() && lane.len() <= 64 && lane.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}
