//! Rules that mirror one object: they must order its events alike, or their tables contradict each other.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use hookmill_keys::{ConfigError, Located};

use crate::ast::{
    ConditionDecl, DeleteDecl, EffectDecl, Newest, RuleDecl, StepDecl, TableDecl, ValueDecl,
};
use crate::{ValuePath, pattern};

/// What orders the events of a rule besides their versions.
#[derive(Clone, Copy, Default)]
pub(crate) struct Agreed<'r> {
    /// The steps that decide between equal versions.
    pub(crate) tie: &'r [StepDecl],
    /// Whether a deletion is final.
    pub(crate) is_final: bool,
}

/// The order of each rule: its own, or else that of a rule that mirrors the same object. A preset's list of types replaces the
/// user's if it orders the same types alike and names more.
pub(crate) fn agreed(rules: &[RuleDecl]) -> Vec<Agreed<'_>> {
    let is_final = |rule: &RuleDecl| newest(rule).and_then(|(_, newest)| newest.is_final);
    let states = |rule: &&RuleDecl| tie(rule).is_some() || is_final(rule).is_some();
    let stating: Vec<_> = rules.iter().filter(states).collect();
    let mut agreed = Vec::with_capacity(rules.len());
    for rule in rules {
        let others = || stating.iter().copied().filter(|other| mirror_one_object(rule, other));
        let finer = tie(rule).filter(|_| !rule.preset).and_then(|own| {
            let presets = others().filter(|other| other.preset);
            let refines = |(other, finer): &(&RuleDecl, &Located<Vec<_>>)| {
                refines(&finer.value, &own.value, &witnesses(rule, other))
            };
            let mut ties = presets.filter_map(|other| Some((other, tie(other)?)));
            ties.find(refines).map(|(_, finer)| finer)
        });
        let tie = finer.or_else(|| tie(rule)).or_else(|| others().find_map(tie));
        let final_others = || others().filter(|other| deletes_within(rule, other));
        let is_final = is_final(rule).or_else(|| final_others().find_map(is_final));
        agreed.push(Agreed {
            tie: tie.map_or(&[], |tie| &tie.value),
            is_final: is_final.unwrap_or_default(),
        });
    }
    agreed
}

/// Rules that mirror one object and say that its events have different orders.
pub(crate) fn contradictions(rules: &[RuleDecl]) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    let rules: Vec<_> = rules.iter().zip(agreed(rules)).collect();
    for (number, later) in rules.iter().enumerate() {
        for earlier in &rules[..number] {
            // The user can change the own rule, not that of a preset.
            let (mine, theirs) = if later.0.preset { (earlier, later) } else { (later, earlier) };
            let ((rule, order), (other, their_order)) = (*mine, *theirs);
            let (Some((_, mine)), Some((_, theirs))) = (newest(rule), newest(other)) else {
                continue;
            };
            if !mirror_one_object(rule, other) {
                continue;
            }
            if let (Some(each), true) = (&rule.each, write_one_list(rule, other)) {
                let error = each.error(format!(
                    "rules `{}` and `{}` both write the whole list of one owner into `{}`",
                    other.name.value,
                    rule.name.value,
                    newest(rule).map(|(table, _)| table.table.value.as_str()).unwrap_or_default()
                ));
                errors.push(error.hint(
                    "the second would remove the rows of the first; use another table, or add a column with a constant to `key`",
                ));
            }
            let problem = |what: &str| {
                format!(
                    "rules `{}` and `{}` mirror one object, but order its events differently: {what}",
                    other.name.value, rule.name.value
                )
            };
            if !same_version(&mine.version.value, &theirs.version.value) {
                let error = mine.version.error(problem("their versions differ"));
                errors.push(error.hint(
                    "their tables would contradict each other; use the same `version` in both",
                ));
            }
            if let (Some(tie), Some(_)) = (&mine.tie, &theirs.tie)
                && !same_order(order.tie, their_order.tie, &witnesses(rule, other))
            {
                let error = tie.error(problem("their `tie.precedence` differs"));
                errors.push(error.hint(
                    "their tables would contradict each other; write the same in both, or remove it from one of them, \
                     which then uses that of the other",
                ));
            }
            if mine.is_final.zip(theirs.is_final).is_some_and(|(mine, theirs)| mine != theirs)
                && deletes_within(rule, other)
            {
                let error = rule.name.error(problem("only one of them has `final = true`"));
                errors.push(error.hint(
                    "their tables would contradict each other; use the same `final` in both",
                ));
            }
        }
    }
    errors
}

/// Rules that write one row of one event with different values: the table's name of the second, and the name of the first. The
/// later rule counts, in the order of the file.
pub fn overlapping(rules: &[RuleDecl]) -> Vec<(&Located<String>, &Located<String>)> {
    let mut found = Vec::new();
    for (number, later) in rules.iter().enumerate() {
        for earlier in &rules[..number] {
            let (Some((table, mine)), Some((other, theirs))) = (newest(later), newest(earlier))
            else {
                continue;
            };
            let same = |(name, value): &(Located<String>, Located<ValueDecl>)| {
                let theirs = theirs.set.iter().find(|(other, _)| other.value == name.value);
                theirs.is_none_or(|(_, other)| other.value == value.value)
            };
            let is_list = later.each.is_some() || earlier.each.is_some();
            if table.table.value == other.table.value
                && !is_list
                && !mine.set.iter().all(same)
                && mirror_one_object(later, earlier)
            {
                found.push((&table.table, &earlier.name));
            }
        }
    }
    found
}

fn tie(rule: &RuleDecl) -> Option<&Located<Vec<StepDecl>>> {
    newest(rule).and_then(|(_, newest)| newest.tie.as_ref())
}

/// The table of a rule that compares events.
fn newest(rule: &RuleDecl) -> Option<(&TableDecl, &Newest)> {
    match &rule.effect {
        EffectDecl::Table(table) => Some((table, table.newest()?)),
        _ => None,
    }
}

/// Whether another rule has all deletions of a rule. The user may delete more rows for a while, such as the access of a
/// customer who has not paid.
fn deletes_within(rule: &RuleDecl, other: &RuleDecl) -> bool {
    let (Some((_, rule)), Some((_, other))) = (newest(rule), newest(other)) else { return false };
    rule.delete.iter().all(|delete| {
        other.delete.iter().any(|other| match (delete, other) {
            (DeleteDecl::Type(one), DeleteDecl::Type(other)) => {
                pattern::matches(&one.value, &other.value)
                    || pattern::matches(&other.value, &one.value)
            }
            (DeleteDecl::When(one), DeleteDecl::When(other)) => one == other,
            _ => false,
        })
    })
}

/// The paths of the object's key.
fn object(table: &TableDecl) -> BTreeSet<Vec<String>> {
    let of_body = |(_, value): &(_, Located<ValueDecl>)| match &value.value {
        ValueDecl::Paths { paths, .. } if !value.value.is_of_element() => {
            Some(paths.iter().map(ValuePath::to_string).collect())
        }
        _ => None,
    };
    table.key.iter().filter_map(of_body).collect()
}

/// Whether each part of a key has a path in common with a part of the other. Paths after the first are fallbacks.
fn same_object(one: &BTreeSet<Vec<String>>, other: &BTreeSet<Vec<String>>) -> bool {
    let shares = |part: &Vec<String>, parts: &BTreeSet<Vec<String>>| {
        parts.iter().any(|other| other.iter().any(|path| part.contains(path)))
    };
    one.len() == other.len()
        && one.iter().all(|part| shares(part, other))
        && other.iter().all(|part| shares(part, one))
}

/// Whether some event is about the same object in both rules. The values of a handler may be about anything.
fn mirror_one_object(one: &RuleDecl, other: &RuleDecl) -> bool {
    let (Some((table, _)), Some((other_table, _))) = (newest(one), newest(other)) else {
        return false;
    };
    let key = object(table);
    let share_events = || {
        one.on.iter().any(|on| {
            other.on.iter().any(|other| on.source == other.source && on.may_be(&other.event_type))
        })
    };
    let apart = |(when, other): (&ConditionDecl, &ConditionDecl)| {
        let excludes = match (when.not, other.not) {
            (false, false) => !when.any_of.iter().any(|value| other.any_of.contains(value)),
            (false, true) => when.any_of.iter().all(|value| other.any_of.contains(value)),
            (true, false) => other.any_of.iter().all(|value| when.any_of.contains(value)),
            (true, true) => false,
        };
        excludes && when.paths == other.paths
    };
    // Every alternative of one rule excludes every alternative of the other.
    let excludes = |one: &[ConditionDecl], other: &[ConditionDecl]| {
        one.iter().any(|when| other.iter().any(|other| apart((when, other))))
    };
    let apart = !one.when.is_empty()
        && !other.when.is_empty()
        && one.when.iter().all(|one| other.when.iter().all(|other| excludes(one, other)));
    !std::ptr::eq(one, other)
        && one.handler.is_none()
        && other.handler.is_none()
        && !key.is_empty()
        && same_object(&key, &object(other_table))
        && share_events()
        && !apart
}

/// Whether two rules write the list of one owner into one table. Constants in the key tell owners apart.
fn write_one_list(one: &RuleDecl, other: &RuleDecl) -> bool {
    let (Some((table, _)), Some((other_table, _))) = (newest(one), newest(other)) else {
        return false;
    };
    let constants = |table: &TableDecl| -> BTreeSet<(String, String)> {
        let constant = |(name, value): &(Located<String>, Located<ValueDecl>)| match &value.value {
            ValueDecl::Constant(json) => Some((name.value.clone(), json.clone())),
            _ => None,
        };
        table.key.iter().filter_map(constant).collect()
    };
    one.each.is_some()
        && other.each.is_some()
        && table.table.value == other_table.table.value
        && constants(table) == constants(other_table)
}

/// Whether two versions are equal wherever both exist.
fn same_version(one: &ValueDecl, other: &ValueDecl) -> bool {
    match (one, other) {
        (ValueDecl::Paths { paths: one, .. }, ValueDecl::Paths { paths: other, .. }) => {
            one.iter().zip(other).all(|(one, other)| one == other)
        }
        _ => one == other,
    }
}

/// Whether the steps order events with these types alike.
fn same_order(one: &[StepDecl], other: &[StepDecl], types: &[String]) -> bool {
    let same = |(one, other): (&StepDecl, &StepDecl)| match (one, other) {
        (StepDecl::Type(one), StepDecl::Type(other)) => {
            let order = |list: &[String], a: &str, b: &str| -> Ordering {
                pattern::position(list, a).cmp(&pattern::position(list, b))
            };
            types.iter().all(|a| types.iter().all(|b| order(one, a, b) == order(other, a, b)))
        }
        _ => one == other,
    };
    one.len() == other.len() && one.iter().zip(other).all(same)
}

/// Whether `finer` orders the types that `coarse` names as `coarse` does.
fn refines(finer: &[StepDecl], coarse: &[StepDecl], types: &[String]) -> bool {
    let ([StepDecl::Type(finer)], [StepDecl::Type(coarse)]) = (finer, coarse) else { return false };
    let named = types.iter().filter(|kind| pattern::position(coarse, kind).is_some());
    let pairs = named.clone().flat_map(|a| named.clone().map(move |b| (a, b)));
    let before =
        |list: &[String], a: &str, b: &str| pattern::position(list, a) < pattern::position(list, b);
    pairs.into_iter().all(|(a, b)| !before(coarse, a, b) || before(finer, a, b))
}

/// Types that both rules apply to: made from their patterns, so that each pattern of their ties is tried.
fn witnesses(one: &RuleDecl, other: &RuleDecl) -> Vec<String> {
    let on = || one.on.iter().chain(&other.on).map(|pattern| pattern.event_type.as_str());
    let steps =
        [one, other].into_iter().filter_map(newest).filter_map(|(_, newest)| newest.tie.as_ref());
    let patterns = steps.flat_map(|tie| &tie.value).filter_map(|step| match step {
        StepDecl::Type(order) => Some(order.iter().map(String::as_str)),
        StepDecl::Value { .. } => None,
    });
    let globs: BTreeSet<&str> = patterns.flatten().chain(on()).collect();
    let mut types = BTreeSet::new();
    for glob in &globs {
        types.insert(glob.replace('*', "other"));
        let Some((_, tail)) = glob.rsplit_once('*') else { continue };
        // `*.created` among the events of `customer.*` is `customer.created`.
        for head in on().filter_map(|on| on.split_once('*')).map(|(head, _)| head) {
            let tail = if head.ends_with('.') { tail.trim_start_matches('.') } else { tail };
            types.insert(format!("{head}{tail}"));
        }
    }
    let applies = |rule: &RuleDecl, kind: &str| {
        rule.on.iter().any(|on| pattern::matches(&on.event_type, kind))
    };
    types.into_iter().filter(|kind| applies(one, kind) && applies(other, kind)).collect()
}
