//! The firmware's System Locality Information Table: how far apart domains are.

use core::fmt;

use super::{Source, Topology};
use crate::addr::NodeId;

/// Distance of a node to itself.
pub const LOCAL_DISTANCE: u8 = 10;

/// Distance to another node, if the firmware says nothing else.
pub const REMOTE_DISTANCE: u8 = 20;

/// Distances between domains, row by row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "struct acpi_table_slit")]
pub struct Slit<'a> {
    domains: usize,
    distances: &'a [u8],
}

/// A distance that cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadDistance {
    /// From this domain.
    pub from: usize,
    /// To this one.
    pub to: usize,
    /// What the table says.
    pub distance: u8,
}

impl fmt::Display for BadDistance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "distance {} from PXM {} to PXM {}",
            self.distance, self.from, self.to
        )
    }
}

impl<'a> Slit<'a> {
    /// Checks the square of `domains` rows that `distances` are.
    ///
    /// # Errors
    /// The first distance that is not 10 to the domain itself, or not more to another: firmware
    /// is known that says 10 everywhere.
    ///
    /// # Panics
    /// If `distances` are no such square.
    #[doc(alias = "slit_valid")]
    pub fn new(domains: usize, distances: &'a [u8]) -> Result<Self, BadDistance> {
        assert_eq!(domains.checked_mul(domains), Some(distances.len()));
        for (at, &distance) in distances.iter().enumerate() {
            let (from, to) = (at / domains, at % domains);
            if (from == to) != (distance == LOCAL_DISTANCE) || distance < LOCAL_DISTANCE {
                return Err(BadDistance { from, to, distance });
            }
        }
        Ok(Self { domains, distances })
    }

    fn distance(&self, from: u32, to: u32) -> Option<u8> {
        let reached = |domain| usize::try_from(domain).ok().filter(|at| *at < self.domains);
        Some(self.distances[reached(from)? * self.domains + reached(to)?])
    }
}

impl Topology {
    /// How far memory of node `to` is for CPUs of node `from`.
    #[must_use]
    #[doc(alias = "acpi_numa_slit_init")]
    pub fn distance(&self, slit: Option<&Slit<'_>>, from: NodeId, to: NodeId) -> u8 {
        let listed = || slit?.distance(self.domain(from)?, self.domain(to)?);
        match self.source {
            Source::Fake => LOCAL_DISTANCE,
            _ if from == to => LOCAL_DISTANCE,
            _ => listed().unwrap_or(REMOTE_DISTANCE),
        }
    }
}
