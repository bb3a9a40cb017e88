//! Each tenant has its own limits, a refused request costs nothing, and tenants are forgotten.

use super::super::bucket::Rate;
use super::{Limit, Rules, Table};

const SECOND_NS: u64 = 1_000_000_000;

fn rules(calls_max: Option<u32>, calls: Option<Rate>, jobs: Option<Rate>) -> Rules {
    Rules { calls_max, calls, jobs, weight: 1 }
}

#[test]
fn one_tenant_s_calls_take_nothing_from_another() {
    let rules = rules(Some(2), None, None);
    let mut table = Table::default();
    for tenant in ["a", "a", "b"] {
        assert_eq!(table.call_begins(tenant, &rules, 0), Ok(true));
    }
    assert_eq!(table.call_begins("a", &rules, 0).unwrap_err().limit, Limit::AtATime);
    assert_eq!(table.call_begins("b", &rules, 0), Ok(true));
    table.call_ended("a");
    assert_eq!(table.call_begins("a", &rules, 0), Ok(true));
}

#[test]
fn a_call_that_is_refused_for_one_limit_costs_nothing_of_the_other() {
    let rules = rules(Some(1), Rate::new(1.0, 2), None);
    let mut table = Table::default();
    assert!(table.call_begins("a", &rules, 0).is_ok());
    for _ in 0..5 {
        assert_eq!(table.call_begins("a", &rules, 0).unwrap_err().limit, Limit::AtATime);
    }
    table.call_ended("a");
    assert!(table.call_begins("a", &rules, 0).is_ok(), "the burst's second is left");
    table.call_ended("a");
    let refused = table.call_begins("a", &rules, 0).unwrap_err();
    assert_eq!((refused.limit, refused.wait_ms), (Limit::Rate, 1_000));
    assert!(table.call_begins("a", &rules, SECOND_NS).is_ok(), "one that was refused does not count as under way");
}

#[test]
fn jobs_and_calls_have_rates_of_their_own() {
    let rules = rules(None, Rate::new(1.0, 1), Rate::new(1.0, 2));
    let mut table = Table::default();
    assert!(table.call_begins("a", &rules, 0).is_ok());
    let jobs = (0..5).filter(|_| table.job_comes("a", &rules, 0).is_ok()).count();
    assert_eq!(jobs, 2);
}

#[test]
fn without_limits_nothing_is_remembered() {
    let mut table = Table::default();
    assert_eq!(table.call_begins("a", &rules(None, None, None), 0), Ok(false));
    assert_eq!(table.job_comes("a", &rules(Some(1), None, None), 0), Ok(()));
    assert_eq!(table.len(), 0);
}

#[test]
fn tenants_that_came_once_are_forgotten_and_those_with_calls_are_not() {
    let rules = rules(Some(1), Rate::new(1.0, 1), None);
    let mut table = Table::default();
    assert!(table.call_begins("stays", &rules, 0).is_ok());
    for at in 0..10_000_u64 {
        let name = at.to_string();
        assert!(table.call_begins(&name, &rules, at * SECOND_NS).is_ok());
        table.call_ended(&name);
    }
    assert!(table.len() <= 1_024, "{}", table.len());
    assert_eq!(table.call_begins("stays", &rules, 20_000 * SECOND_NS).unwrap_err().limit, Limit::AtATime);
}

#[test]
fn more_tenants_at_a_time_than_can_be_remembered_are_refused() {
    let rules = rules(Some(1), None, None);
    let mut table = Table::default();
    for at in 0..super::TENANTS_MAX {
        assert!(table.call_begins(&at.to_string(), &rules, 0).is_ok());
    }
    assert_eq!(table.call_begins("one more", &rules, 0).unwrap_err().limit, Limit::Tenants);
    assert_eq!(
        table.call_begins("0", &rules, 0).unwrap_err().limit,
        Limit::AtATime,
        "known ones have their own limits"
    );
}
