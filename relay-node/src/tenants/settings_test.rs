//! Limits of all tenants, and of those that have their own.

use super::{Rate, TenantSettings};

fn settings(overrides: &[&str]) -> TenantSettings {
    TenantSettings {
        calls_max: 0,
        calls_per_s: 5.0,
        calls_burst: 10,
        jobs_per_s: 0.0,
        jobs_burst: 100,
        weight: 1,
        overrides: overrides.iter().map(|entry| (*entry).to_owned()).collect(),
    }
}

#[test]
fn an_override_names_what_differs() {
    let rules = settings(&["acme;calls_max=8;weight=3;jobs_per_s=0.5", "free;calls_per_s=0"]).rules().unwrap();
    let acme = rules.of("acme");
    assert_eq!((acme.calls_max, acme.weight), (Some(8), 3));
    assert_eq!((acme.calls, acme.jobs), (Rate::new(5.0, 10), Rate::new(0.5, 100)));
    assert_eq!(rules.of("free").calls, None);
    let others = rules.of("anyone");
    assert_eq!((others.calls_max, others.calls, others.jobs, others.weight), (None, Rate::new(5.0, 10), None, 1));
}

#[test]
fn what_cannot_be_used_is_named() {
    let wrong = [
        ";calls_max=1",
        "a/b;calls_max=1",
        "acme;calls_max",
        "acme;calls_max=many",
        "acme;slots=2",
        "acme;weight=0",
        "acme;calls_burst=0",
        "acme;calls_per_s=-1",
        "acme;calls_per_s=nan",
    ];
    for entry in wrong {
        let error = settings(&[entry]).rules().unwrap_err();
        assert_eq!(error.key, "tenants.overrides");
        assert!(error.problem.contains(entry), "{error}");
    }
    assert!(settings(&["acme", "acme;weight=2"]).rules().is_err(), "which one?");
    assert_eq!(TenantSettings { weight: 2_000, ..settings(&[]) }.rules().unwrap_err().key, "tenants");
}
