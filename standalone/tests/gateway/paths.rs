//! Requests to addresses, with methods, and for jobs that do not exist.

use reqwest::Method;

use crate::cluster::fixture;
use crate::cluster::on_cluster;
use crate::http::{answer, expect_accepted, expect_refusal, file_form, post_form, terminal_event};

/// A well-formed id that no job has.
const NO_JOB: &str = "01a209ac-0cbb-70fb-8123-456789abcdef";

#[actix_web::test]
async fn unknown_paths_and_wrong_methods_are_refused_in_shape() {
    on_cluster(&[], async |cluster| {
        let http = reqwest::Client::new();
        for path in
            ["/", "/v1", "/v1/", "/v1/job", "/v1/jobs/", "/v2/jobs", "/v1/jobs/x/y", "/..%2f..%2fetc/passwd", "/%00"]
        {
            let response = answer(http.get(format!("{}{path}", cluster.url()))).await;
            expect_refusal(path, response, 404, "not_found", &["there is no "]).await;
        }
        let job = format!("/v1/jobs/{NO_JOB}");
        let wrong = [
            (Method::DELETE, "/v1/jobs".to_owned()),
            (Method::PUT, job.clone()),
            (Method::POST, job.clone()),
            (Method::POST, format!("{job}/events")),
            (Method::DELETE, format!("{job}/result")),
            (Method::POST, "/v1/nodes".to_owned()),
        ];
        for (method, path) in wrong {
            let case = format!("{method} {path}");
            let response = answer(http.request(method, format!("{}{path}", cluster.url()))).await;
            expect_refusal(&case, response, 405, "method_not_allowed", &[&case]).await;
        }
    })
    .await;
}

#[actix_web::test]
async fn jobs_that_do_not_exist_are_refused_by_every_address() {
    on_cluster(&[], async |cluster| {
        let http = reqwest::Client::new();
        for (method, rest) in
            [(Method::GET, ""), (Method::DELETE, ""), (Method::GET, "/events"), (Method::GET, "/result")]
        {
            let case = format!("{method} {rest}");
            let url = format!("{}/v1/jobs/{NO_JOB}{rest}", cluster.url());
            let response = answer(http.request(method.clone(), url)).await;
            expect_refusal(&case, response, 404, "unknown_job", &[NO_JOB]).await;
            for id in ["42", "not-an-id", "01a209ac-0cbb-70fb-8123-456789abcdeg", &"0".repeat(2_000)] {
                let url = format!("{}/v1/jobs/{id}{rest}", cluster.url());
                let response = answer(http.request(method.clone(), url)).await;
                expect_refusal(&format!("{case} {id}"), response, 400, "invalid_field", &["job id", "UUID"]).await;
            }
        }
    })
    .await;
}

#[actix_web::test]
async fn questions_that_a_job_cannot_answer_are_refused() {
    on_cluster(&[], async |cluster| {
        let accepted = post_form(cluster, file_form("probe", fixture("images/picture.png"))).await;
        let id = expect_accepted("probe", accepted).await;
        terminal_event(cluster, &id).await;
        let (http, url) = (reqwest::Client::new(), format!("{}/v1/jobs/{id}", cluster.url()));
        let result = answer(http.get(format!("{url}/result"))).await;
        expect_refusal("no media", result, 404, "no_result", &["completed event"]).await;
        let cancel = answer(http.delete(&url)).await;
        expect_refusal("ended", cancel, 409, "already_ended", &[&id, "ended"]).await;
        for last in ["x", "-1", "1.5", "99999999999999999999"] {
            let events = answer(http.get(format!("{url}/events")).header("Last-Event-ID", last)).await;
            expect_refusal(last, events, 400, "bad_request", &["Last-Event-ID"]).await;
        }
    })
    .await;
}

/// Whoever has the answer to a submit can ask for the job.
#[actix_web::test]
async fn a_job_that_was_accepted_is_known_at_once() {
    on_cluster(&[], async |cluster| {
        let http = reqwest::Client::new();
        for number in 0..30 {
            let accepted = post_form(cluster, file_form("probe", fixture("images/picture.png"))).await;
            let url = format!("{}/v1/jobs/{}", cluster.url(), expect_accepted("probe", accepted).await);
            let asked = match number % 3 {
                0 => answer(http.get(&url)).await,
                1 => answer(http.get(format!("{url}/events"))).await,
                _ => answer(http.delete(&url)).await,
            };
            assert_ne!(asked.status().as_u16(), 404, "question {number}: {:?}", asked.text().await);
        }
    })
    .await;
}
