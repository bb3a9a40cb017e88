//! Stable codes of everything that can be refused or fail: the same in frames, HTTP bodies, events and the CLI.

use std::fmt;

/// Implements [`ErrorCode`] from one table: variant, code, HTTP status, retryable, meaning.
macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident $code:literal $status:literal $retryable:literal;)*) => {
        /// A stable code. Codes are added, never renamed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode { $($(#[$doc])* $variant,)* }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The code as written.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The HTTP status that it goes with.
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// Whether the same request may succeed later.
            pub const fn retryable(self) -> bool {
                match self { $(Self::$variant => $retryable,)* }
            }
        }
    };
}

error_codes! {
    /// The request cannot be read: not JSON, a field missing, a form part unknown.
    BadRequest "bad_request" 400 false;
    /// The frame is not one: wrong magic, length or head.
    BadFrame "bad_frame" 400 false;
    /// A text WebSocket message came where only binary ones are spoken.
    TextMessage "text_message" 400 false;
    /// No protocol version in common.
    NoCommonVersion "no_common_version" 400 false;
    /// No hello came in time, or something else came first.
    HelloExpected "hello_expected" 400 false;
    /// Too many connections that have not said hello.
    TooManyHandshakes "too_many_handshakes" 429 true;
    /// The task is unknown.
    UnknownTask "unknown_task" 400 false;
    /// The task does not know this parameter.
    UnknownParameter "unknown_parameter" 400 false;
    /// The parameter's value is of the wrong kind or outside its range.
    InvalidParameter "invalid_parameter" 400 false;
    /// No backend has the model.
    UnknownModel "unknown_model" 404 false;
    /// The lane is unknown.
    UnknownLane "unknown_lane" 404 false;
    /// A field breaks a rule: a name, a key, a time.
    InvalidField "invalid_field" 400 false;
    /// The input is empty.
    EmptyMedia "empty_media" 400 false;
    /// The body of a request stopped, or came too slowly.
    RequestTimeout "request_timeout" 408 true;
    /// The input is larger than allowed.
    TooLarge "too_large" 413 false;
    /// The input is no media that the task can read.
    NotMedia "not_media" 422 false;
    /// The input is of a recognised, but not supported kind.
    UnsupportedMedia "unsupported_media" 422 false;
    /// The input ends before it should.
    TruncatedMedia "truncated_media" 422 false;
    /// The input is damaged.
    CorruptMedia "corrupt_media" 422 false;
    /// The input lasts longer than allowed.
    MediaTooLong "media_too_long" 422 false;
    /// The input needs more memory than allowed once it is decoded.
    MediaTooLarge "media_too_large" 422 false;
    /// The uploaded bytes do not have the digest or size that was announced.
    DigestMismatch "digest_mismatch" 400 false;
    /// The bytes of an upload do not begin where the stored ones end.
    WrongOffset "wrong_offset" 409 false;
    /// The tenant's inputs take all the room that it has in the object store.
    QuotaExceeded "quota_exceeded" 507 true;
    /// There is no such upload, or not any more.
    UnknownUpload "unknown_upload" 404 false;
    /// The URL is not on the node's allow-list.
    UrlNotAllowed "url_not_allowed" 403 false;
    /// The URL could not be fetched.
    UrlFailed "url_failed" 422 true;
    /// The task needs a LocalAI backend, and none is configured.
    NeedsLocalAi "needs_localai" 422 false;
    /// The backend refuses the job and will refuse it again.
    BackendRejected "backend_rejected" 422 false;
    /// The backend failed or did not answer.
    BackendFailed "backend_failed" 502 true;
    /// Every backend is busy or resting.
    BackendBusy "backend_busy" 503 true;
    /// The stored input is gone or cannot be read.
    InputUnavailable "input_unavailable" 500 true;
    /// The job was not done before its deadline.
    DeadlineExceeded "deadline_exceeded" 504 false;
    /// The connection waited for the job as long as it may; the job goes on.
    StillRunning "still_running" 504 true;
    /// The job was cancelled.
    Cancelled "cancelled" 409 false;
    /// All attempts were used up.
    AttemptsExhausted "attempts_exhausted" 502 false;
    /// Nodes die of it: it was the only suspect on each of them.
    Poison "poison" 502 false;
    /// The node that ran the attempt died, lost the job, or was cut off from its coordinators.
    AttemptLost "attempt_lost" 503 true;
    /// There is no such job, or not for this tenant, or not any more.
    UnknownJob "unknown_job" 404 false;
    /// The job has no result media.
    NoResult "no_result" 404 false;
    /// The idempotency key is that of another job of the tenant and lane, which does something else.
    IdempotencyKeyReused "idempotency_key_reused" 409 false;
    /// The job had ended before.
    AlreadyEnded "already_ended" 409 false;
    /// There is no such dead letter, or not for this tenant, or not any more.
    UnknownLetter "unknown_letter" 404 false;
    /// The dead letter was redriven or dropped, or is being redriven.
    LetterClosed "letter_closed" 409 false;
    /// The dead letter has as many marks as one may have.
    TooManyMarks "too_many_marks" 507 false;
    /// No token, or not a valid one.
    Unauthenticated "unauthenticated" 401 false;
    /// The token does not allow it.
    Forbidden "forbidden" 403 false;
    /// A limit is reached: too many jobs in a session, too many watches that wait for their past.
    TooManyRequests "too_many_requests" 429 true;
    /// The log cannot be written now.
    LogUnavailable "log_unavailable" 503 true;
    /// The object store cannot be used now.
    StoreUnavailable "store_unavailable" 503 true;
    /// No coordinator answers.
    CoordinatorUnavailable "coordinator_unavailable" 503 true;
    /// The node is going down.
    Draining "draining" 503 true;
    /// No such address.
    NotFound "not_found" 404 false;
    /// The address does not take this method.
    MethodNotAllowed "method_not_allowed" 405 false;
    /// A record in a lane is not a job.
    NotAJob "not_a_job" 400 false;
    /// Events that a resume or watch should go on from are older than the topic's retention.
    ResumeExpired "resume_expired" 410 false;
    /// A resume token is no token of this cluster, or another caller's.
    InvalidResumeToken "invalid_resume_token" 400 false;
    /// A defect of the relay.
    Internal "internal" 500 true;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
