//! Requests that wait for a slot, in the order in which they get one. Pure.

use std::collections::{BTreeMap, HashMap};

use relay_protocol::Priority;

use super::{Need, Ticket};

/// A place among those of one priority: those begun before first, then by score, then as they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) priority: Priority,
    is_new: bool,
    score: u64,
    pub(super) ticket: Ticket,
}

impl Place {
    pub(super) fn new(need: &Need, score: u64, ticket: Ticket) -> Self {
        Self { priority: need.priority, is_new: !need.is_begun, score, ticket }
    }

    /// Order among all: the higher priority first.
    pub(super) fn rank(&self) -> (std::cmp::Reverse<Priority>, bool, u64, Ticket) {
        (std::cmp::Reverse(self.priority), self.is_new, self.score, self.ticket)
    }

    fn bounds(priority: Priority) -> std::ops::RangeInclusive<Self> {
        let bound = |is_new, score| Self { priority, is_new, score, ticket: score };
        bound(false, 0)..=bound(true, u64::MAX)
    }
}

/// What a backend must have for a request: those with the same class can go to the same backends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Class {
    BuiltIn,
    AnyModel,
    Model(String),
}

impl Class {
    pub(super) fn of(need: &Need) -> Self {
        match &need.kind.model {
            _ if need.is_builtin() => Self::BuiltIn,
            None => Self::AnyModel,
            Some(model) => Self::Model(model.clone()),
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    classes: BTreeMap<Class, BTreeMap<Place, Need>>,
    tickets: HashMap<Ticket, (Class, Place)>,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    pub(super) fn keep(&mut self, place: Place, need: Need) {
        let class = Class::of(&need);
        self.tickets.insert(place.ticket, (class.clone(), place));
        self.classes.entry(class).or_default().insert(place, need);
    }

    pub(super) fn forget(&mut self, ticket: Ticket) -> Option<(Place, Need)> {
        let (class, place) = self.tickets.remove(&ticket)?;
        let queue = self.classes.get_mut(&class)?;
        let need = queue.remove(&place)?;
        if queue.is_empty() {
            self.classes.remove(&class);
        }
        Some((place, need))
    }

    pub(super) fn get(&self, place: Place) -> Option<&Need> {
        let (class, _) = self.tickets.get(&place.ticket)?;
        self.classes.get(class)?.get(&place)
    }

    /// The first of a priority that `fits`, of the classes that `serves`.
    pub(super) fn first(
        &self,
        priority: Priority,
        serves: impl Fn(&Class) -> bool,
        fits: impl Fn(&Place, &Need) -> bool,
    ) -> Option<Place> {
        let queues = self.classes.iter().filter(|(class, _)| serves(class)).map(|(_, queue)| queue);
        let first = |queue: &BTreeMap<Place, Need>| {
            queue.range(Place::bounds(priority)).find(|(place, need)| fits(place, need)).map(|(place, _)| *place)
        };
        queues.filter_map(first).min()
    }

    /// The classes of which some wait.
    pub(super) fn classes(&self) -> impl Iterator<Item = &Class> {
        self.classes.keys()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Place, &Need)> {
        self.classes.values().flatten()
    }

    /// Those of all priorities in order.
    pub(super) fn in_order(&self) -> Vec<Place> {
        let mut places: Vec<_> = self.iter().map(|(place, _)| *place).collect();
        places.sort_unstable_by_key(Place::rank);
        places
    }
}
