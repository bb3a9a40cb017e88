//! Who is served by which scan, and how many there are of them.

use proptest::prelude::*;

use super::*;

fn line(partition: u32) -> Line {
    Line { partition, reach: Reach::ago(0) }
}

#[test]
fn all_that_wait_in_a_line_are_served_by_one_scan() {
    let mut queue = Queue::new(4, 100);
    queue.push(line(1), "first");
    assert_eq!(queue.next_scan(), Some((line(1), vec!["first"])));
    (0..3).for_each(|_| queue.push(line(1), "later"));
    assert_eq!(queue.next_scan(), None, "one scan of a line at a time");
    queue.ended(line(1));
    assert_eq!(queue.next_scan(), Some((line(1), vec!["later"; 3])));
}

#[test]
fn the_line_in_which_one_waits_longest_is_next() {
    let mut queue = Queue::new(1, 100);
    queue.push(line(1), 1);
    queue.push(line(2), 2);
    queue.push(line(1), 3);
    assert_eq!(queue.next_scan(), Some((line(1), vec![1, 3])));
    queue.push(line(1), 4);
    queue.ended(line(1));
    assert_eq!(queue.next_scan(), Some((line(2), vec![2])));
}

#[test]
fn pasts_of_about_the_same_age_share_a_line() {
    let minutes = |minutes: u64| Reach::ago(minutes * 60_000);
    assert_eq!(minutes(0), minutes(9));
    assert_ne!(minutes(9), minutes(11));
    assert_eq!(minutes(11), minutes(19));
    assert_ne!(minutes(60), minutes(24 * 60));
    assert_eq!(Reach::behind(0), Reach::behind(4_000));
    assert_ne!(Reach::behind(0), Reach::behind(1_000_000));
}

proptest! {
    #[test]
    fn every_member_is_served_once_and_the_bounds_hold(
        readers_max in 1_usize..4,
        steps in prop::collection::vec((0_u32..5, any::<bool>()), 1..200),
    ) {
        let mut queue = Queue::new(readers_max, 20);
        let (mut pushed, mut served, mut running) = (0_usize, Vec::new(), Vec::new());
        for (partition, ends) in steps {
            if queue.has_room() {
                queue.push(line(partition), pushed);
                pushed += 1;
            }
            while let Some((line, members)) = queue.next_scan() {
                prop_assert!(!running.contains(&line));
                running.push(line);
                served.extend(members);
            }
            prop_assert!(queue.reading() <= readers_max && queue.waiting() <= 20);
            prop_assert_eq!(queue.reading(), running.len());
            if ends && !running.is_empty() {
                queue.ended(running.remove(partition as usize % running.len()));
            }
        }
        while !running.is_empty() || queue.waiting() > 0 {
            running.drain(..).for_each(|line| queue.ended(line));
            while let Some((line, members)) = queue.next_scan() {
                running.push(line);
                served.extend(members);
            }
        }
        served.sort_unstable();
        prop_assert_eq!(served, (0..pushed).collect::<Vec<_>>());
    }
}
