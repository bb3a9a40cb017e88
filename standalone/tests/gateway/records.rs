//! Bad records of a producer that writes the lane itself: nobody can refuse them at the door, so they end as `failed`.

use bytes::Bytes;
use relay_log::port::{NewRecord, TopicPartition};
use relay_protocol::{EventKind, JobId, topics};
use serde_json::json;

use crate::cluster::{on_cluster, wait_for};
use crate::http::{answer, expect_says, terminal_event};

#[actix_web::test]
async fn a_record_with_bad_parameters_fails_with_what_the_task_takes() {
    on_cluster(&[], async |cluster| {
        let cases = [
            ("vad", json!({ "loud": 1 }), "unknown_parameter", "it knows: threshold"),
            ("vad", json!({ "threshold": 7 }), "invalid_parameter", "from 0.01 to 0.99, not 7"),
            ("waveform", json!({ "width": "15" }), "invalid_parameter", "from 16 to 4096, not \"15\""),
            ("chat", json!({ "top_p": 1.5 }), "invalid_parameter", "from 0 to 1, not 1.5"),
        ];
        for (number, (task, params, code, says)) in (0..).zip(cases) {
            let id = JobId::new(1_700_000_000_000, 0, number);
            let job = json!({ "id": id, "task": task, "params": params, "input": { "text": "sound" } });
            let record = NewRecord {
                to: TopicPartition::new(topics::jobs("default"), 0),
                key: Some(Bytes::from(format!("default/{id}"))),
                value: Some(Bytes::from(job.to_string())),
                headers: Vec::new(),
                timestamp_ms: 1_700_000_000_000,
            };
            cluster.log().append(vec![record]).await.expect("the log takes it");
            let url = format!("{}/v1/jobs/{id}", cluster.url());
            wait_for("the record to be read", async || answer(reqwest::Client::new().get(&url)).await.status() == 200)
                .await;
            let last = terminal_event(cluster, &id.to_string()).await;
            assert_eq!((last.event, last.attempt), (EventKind::Failed, 0), "{job}: {last:?}");
            let error = last.error.expect("a failed event has its error");
            assert_eq!((error.code.as_str(), error.retryable), (code, false), "{job}: {error:?}");
            expect_says(code, &error.message, &[says]);
        }
    })
    .await;
}
