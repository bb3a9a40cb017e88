//! Requests that wait for a slot, in the order in which they get one: by tenant, each tenant's in its own order. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use relay_protocol::Priority;

use super::{Need, Ticket};
use crate::fair::WEIGHT_MAX;
use crate::tenants::turns::Tenant;

/// A place among those of one tenant and priority: those begun before first, then by score, then as they came.
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

/// Those of one tenant.
type Queue = BTreeMap<Place, Need>;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    classes: BTreeMap<Class, BTreeMap<Tenant, Queue>>,
    tickets: HashMap<Ticket, (Class, Tenant, Place)>,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    pub(super) fn keep(&mut self, place: Place, need: Need) {
        let (class, tenant) = (Class::of(&need), need.tenant.clone());
        self.tickets.insert(place.ticket, (class.clone(), tenant.clone(), place));
        self.classes.entry(class).or_default().entry(tenant).or_default().insert(place, need);
    }

    pub(super) fn forget(&mut self, ticket: Ticket) -> Option<(Place, Need)> {
        let (class, tenant, place) = self.tickets.remove(&ticket)?;
        let tenants = self.classes.get_mut(&class)?;
        let queue = tenants.get_mut(&tenant)?;
        let need = queue.remove(&place)?;
        if queue.is_empty() {
            tenants.remove(&tenant);
        }
        if tenants.is_empty() {
            self.classes.remove(&class);
        }
        Some((place, need))
    }

    pub(super) fn get(&self, place: Place) -> Option<&Need> {
        let (class, tenant, _) = self.tickets.get(&place.ticket)?;
        self.classes.get(class)?.get(tenant)?.get(&place)
    }

    /// Of a priority and the classes that `serves` the first that `fits`, of the tenant whose `clock` is lowest; of tenants whose clocks
    /// are the same, the first of all.
    pub(super) fn first(
        &self,
        priority: Priority,
        serves: impl Fn(&Class) -> bool,
        fits: impl Fn(&Place, &Need) -> bool,
        clock: impl Fn(&str) -> u64,
    ) -> Option<Place> {
        let tenants = self.classes.iter().filter(|(class, _)| serves(class)).flat_map(|(_, tenants)| tenants);
        let first = |(tenant, queue): (&Tenant, &Queue)| {
            let mut places = queue.range(Place::bounds(priority));
            places.find(|(place, need)| fits(place, need)).map(|(place, _)| (clock(tenant), *place))
        };
        tenants.filter_map(first).min().map(|(_, place)| place)
    }

    /// The classes of which some wait.
    pub(super) fn classes(&self) -> impl Iterator<Item = &Class> {
        self.classes.keys()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Place, &Need)> {
        self.classes.values().flat_map(BTreeMap::values).flatten()
    }

    /// All in order: the higher priority first; of one, tenants in turn by weight, and each tenant's by their places.
    pub(super) fn in_order(&self, weight: impl Fn(&str) -> u32) -> Vec<Place> {
        let mut waiting: Vec<_> = self.iter().map(|(place, need)| (place.priority, &need.tenant, *place)).collect();
        waiting.sort_unstable();
        let mut ranked = Vec::with_capacity(waiting.len());
        for of_tenant in waiting.chunk_by(|one, other| (one.0, one.1) == (other.0, other.1)) {
            let weight = of_tenant.first().map_or(1, |(_, tenant, _)| u64::from(weight(tenant).max(1)));
            let turns = (0_u64..).map(|nth| nth * u64::from(WEIGHT_MAX) / weight);
            ranked.extend(turns.zip(of_tenant).map(|(turn, (priority, _, place))| (Reverse(*priority), turn, *place)));
        }
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, _, place)| place).collect()
    }
}
