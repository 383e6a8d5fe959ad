//! What the policies do, against the tables in the documentation; and mappings, pins and
//! frees in random order against a model that knows nothing but who has what.

use lab::rmap::Policy;
use lab_cases::rmap_policy::{OPERATIONS, Subject, observe};
use testkit::World;

/// The rows of a table by doing what it says.
fn observed(subject: Subject) -> Vec<String> {
    let w = World::small();
    let env = w.env();
    let columns = Policy::ALL.map(|policy| {
        observe(&env, policy, subject).unwrap_or_else(|stop| panic!("{policy}: {stop:?}"))
    });
    w.check();
    (0..OPERATIONS.len())
        .filter(|row| columns.iter().any(|column| column[*row] != "-"))
        .map(|row| {
            let cells = columns.each_ref().map(|column| column[row].clone());
            format!("//! | {} | {} |", OPERATIONS[row], cells.join(" | "))
        })
        .collect()
}

#[test]
fn documented_outcomes_are_what_happens() {
    let documentation = include_str!("../src/rmap/mod.rs");
    let tables: Vec<&str> = documentation
        .lines()
        .filter(|line| line.starts_with("//! | `") || line.contains("left at free"))
        .collect();
    let rows: Vec<String> = [Subject::Compound, Subject::Bare]
        .into_iter()
        .flat_map(observed)
        .collect();
    assert_eq!(tables, rows, "should be:\n{}", rows.join("\n"));
    let header = Policy::ALL.map(|policy| policy.to_string()).join(" | ");
    assert_eq!(documentation.matches(&header).count(), 2, "the columns");
}
