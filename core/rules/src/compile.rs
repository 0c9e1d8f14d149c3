//! Compiles rules to a [`Program`]: checks names against the schema, collects paths, writes SQL.

use std::collections::{BTreeMap, BTreeSet};

use hookmill_core::outbound::Provider;
use hookmill_core::schema::{Affinity, OWN_TABLES, Schema, Table, TableColumn};
use hookmill_keys::{ConfigError, Located, nearest};

use crate::agree::{self, Agreed};
use crate::api;
use crate::ast::{
    ConditionDecl, DeleteDecl, EffectDecl, NamedValues, Newest, RuleDecl, SendDecl, StepDecl,
    SuppressionDecl, TableDecl, TableWrite, ValueDecl,
};
use crate::sql::{self, Missing, ORDER_COLUMNS, Parent, Target};
use crate::{
    Column, Condition, Delete, Each, Effect, EventField, Form, GUARD_COLUMNS, Guard, HandlerRef,
    Path, PathRead, Places, Program, Proof, Reads, Refetch, Rule, Send, Sql, Step, Suppression,
    Takes, TieStep, Unmatched, Value, ValuePath, When,
};

/// What the rest of hookmill.toml says that rules refer to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Surroundings {
    /// By source: what happens to an event that no rule matches.
    pub unmatched: BTreeMap<String, Unmatched>,
    /// By source: the provider whose API is configured.
    pub apis: BTreeMap<String, Provider>,
    /// By source: the headers that its events keep, in lower case.
    pub headers: BTreeMap<String, BTreeSet<String>>,
    /// The providers of `[email]`, if it is configured.
    pub emails: Option<Vec<Provider>>,
    /// Whether `[sms]` is configured.
    pub sms: bool,
    /// The configured providers of tracking events.
    pub tracking: Vec<Provider>,
    /// The names of the templates.
    pub templates: BTreeSet<String>,
}

/// Compiles rules.
///
/// # Errors
///
/// Every error of every rule: a table or column that the schema does not have, a key that is not the table's, a table that
/// rules could not write in any order, a handler that is not in `handlers`.
pub fn compile(
    rules: &[RuleDecl],
    surroundings: &Surroundings,
    schema: &Schema,
    handlers: &[&str],
) -> Result<Program, Vec<ConfigError>> {
    let mut program = Program { unmatched: surroundings.unmatched.clone(), ..Program::default() };
    let mut errors = Vec::new();
    let tables = || {
        rules.iter().filter_map(|rule| match &rule.effect {
            EffectDecl::Table(table) => Some((rule, table)),
            _ => None,
        })
    };
    let managed = managed(tables());
    for (rule, agreed) in rules.iter().zip(agree::agreed(rules)) {
        if let Some(name) = rule.handler.as_ref().filter(|name| !handlers.contains(&&*name.value)) {
            let problem = name.error(format!("there is no handler `{}`", name.value));
            errors.push(if handlers.is_empty() {
                problem.hint("this build has no handlers; add one in consumers/handlers")
            } else {
                problem.suggest(&name.value, handlers.iter().copied())
            });
        }
        errors.extend(check_headers(rule, surroundings));
        match compile_rule((rule, agreed), surroundings, &managed, schema, &mut program.reads) {
            Ok(rule) => program.rules.push(rule),
            Err(faults) => errors.extend(faults),
        }
    }
    let known = tables().filter(|(_, table)| schema.tables.contains_key(&table.table.value));
    errors.extend(disagreements(known));
    errors.extend(agree::contradictions(rules));
    errors.extend(check_parents(rules, schema));
    errors.sort();
    if errors.is_empty() { Ok(program) } else { Err(errors) }
}

/// The rules of a table together.
#[derive(Default)]
struct Managed<'r> {
    /// Every column that a rule sets.
    columns: BTreeSet<&'r str>,
    /// The sources of its rules.
    sources: BTreeSet<&'r str>,
    /// Whether a rule removes rows.
    removes: bool,
    /// The parents of its rows: columns and tables.
    parents: BTreeSet<(&'r str, &'r str)>,
    /// The children of its rows: tables and columns.
    children: BTreeSet<(&'r str, &'r str)>,
}

fn managed<'r>(
    rules: impl Iterator<Item = (&'r RuleDecl, &'r TableDecl)>,
) -> BTreeMap<&'r str, Managed<'r>> {
    let mut managed = BTreeMap::<_, Managed<'r>>::new();
    for (whole, rule) in rules {
        let table = managed.entry(rule.table.value.as_str()).or_default();
        table.columns.extend(rule.newest().into_iter().flat_map(|newest| names(&newest.set)));
        table.sources.extend(whole.on.iter().map(|on| on.source.as_str()));
        table.removes |= matches!(rule.write, TableWrite::Remove { .. });
        let child = rule.table.value.as_str();
        for (column, parent) in rule.newest().into_iter().flat_map(|newest| &newest.parents) {
            let (column, parent) = (column.value.as_str(), parent.value.as_str());
            managed.entry(child).or_default().parents.insert((column, parent));
            managed.entry(parent).or_default().children.insert((child, column));
        }
    }
    managed
}

/// The parent of a child's column.
fn parent<'r>(column: &'r str, table: &'r str, schema: &'r Schema) -> Option<Parent<'r>> {
    let [key] = schema.tables.get(table).map(keys)?[..] else { return None };
    Some(Parent { column, table, key })
}

/// The parents of a table.
fn parents<'r>(managed: &Managed<'r>, schema: &'r Schema) -> Vec<Parent<'r>> {
    managed.parents.iter().filter_map(|&(column, table)| parent(column, table, schema)).collect()
}

/// The statements for the tables below a table, the nearest first. A circle has been reported, and ends here.
fn orphans(
    rule: &str,
    table: &str,
    managed: &BTreeMap<&str, Managed<'_>>,
    schema: &Schema,
) -> Vec<Sql> {
    let has_parents = managed.get(table).is_some_and(|table| !table.parents.is_empty());
    let mut lines: Vec<Vec<_>> = vec![Vec::new()];
    let (mut next, mut orphans) = (0, Vec::new());
    while let Some(line) = lines.get(next).cloned() {
        let last = line.last().map_or(table, |(child, _)| *child);
        for &(child, column) in managed.get(last).into_iter().flat_map(|table| &table.children) {
            let is_new = child != table && line.iter().all(|(above, _)| *above != child);
            let Some(link) = parent(column, last, schema).filter(|_| is_new) else { continue };
            let line: Vec<_> = line.iter().copied().chain([(child, link)]).collect();
            let parents = managed.get(child).map(|child| parents(child, schema));
            orphans.extend(sql::orphans(rule, &line, &parents.unwrap_or_default(), has_parents));
            lines.push(line);
        }
        next += 1;
    }
    orphans
}

/// A source of the rule keeps each header that it reads.
fn check_headers(rule: &RuleDecl, surroundings: &Surroundings) -> Vec<ConfigError> {
    let is_kept = |name: &String| {
        let mut kept = rule.on.iter().filter_map(|on| surroundings.headers.get(&on.source));
        kept.any(|kept| kept.contains(name))
    };
    let values = rule.values().into_iter();
    let of_values = values.flat_map(|value| value.value.paths().map(|path| (value.place(), path)));
    let of_conditions = rule
        .conditions()
        .flat_map(|condition| condition.paths.iter().map(|path| (rule.name.place(), path)));
    let headers = of_values.chain(of_conditions).filter_map(|(here, path)| match path {
        ValuePath::Header(name) if !is_kept(name) => Some((here, name)),
        _ => None,
    });
    let error = |(here, name): (Located<()>, &String)| {
        let error = here.error(format!("no source of this rule keeps the header {name:?}"));
        let source = rule.on.first().map_or("NAME", |on| &on.source);
        let kept = rule.on.iter().filter_map(|on| surroundings.headers.get(&on.source)).flatten();
        match nearest(name, kept.map(String::as_str)) {
            Some(near) => error.hint(format!("did you mean `header:{near}`?")),
            None => error.hint(format!("add to [sources.{source}]: keep_headers = [{name:?}]")),
        }
    };
    headers.map(error).collect()
}

/// `body` collects the paths into the event's body.
fn compile_rule(
    (rule, agreed): (&RuleDecl, Agreed<'_>),
    surroundings: &Surroundings,
    all: &BTreeMap<&str, Managed<'_>>,
    schema: &Schema,
    body: &mut Reads,
) -> Result<Rule, Vec<ConfigError>> {
    let (mut returned, mut elements) = (Reads::default(), Reads::default());
    let body = if rule.handler.is_some() { &mut returned } else { body };
    let mut places = Places { body, element: &mut elements };
    let name = rule.name.value.as_str();
    let mut proof = None;
    let (sql, effect) = match &rule.effect {
        EffectDecl::Table(table) => {
            let none = Managed::default();
            let managed = all.get(table.table.value.as_str()).unwrap_or(&none);
            let orphans = orphans(name, &table.table.value, all, schema);
            let managed = (managed, orphans);
            let table =
                compile_table((rule, agreed), table, managed, (schema, surroundings), &mut places)?;
            proof = table.2;
            (table.0, table.1)
        }
        EffectDecl::Send(send) => {
            (vec![sql::outbox(name).into()], compile_send(send, surroundings, &mut places)?)
        }
        EffectDecl::Outcome { of, by_provider_id, outcome } => {
            let of = value(&of.value, true, &mut places);
            let (by_provider_id, outcome) = (*by_provider_id, *outcome);
            let column = if by_provider_id { "provider_id" } else { "id" };
            (
                vec![sql::outcome(name, column).into()],
                Effect::Outcome { of, by_provider_id, outcome },
            )
        }
        EffectDecl::Suppress(whom) => {
            let whom = suppression(whom, &mut places)?;
            (vec![sql::suppress(name, &whom).into()], Effect::Suppress(whom))
        }
        EffectDecl::Lift(whom) => {
            let whom = suppression(whom, &mut places)?;
            (sql::lift(name, &whom).map(Sql::from).into(), Effect::Lift(whom))
        }
    };
    let when = if rule.when.is_empty() {
        When(vec![Vec::new()])
    } else {
        When(rule.when.iter().map(|when| conditions(when, &mut places)).collect())
    };
    let list = rule.each.as_ref().map(|list| places.add(&list.value));
    let more = rule.more.as_ref().map(|more| places.add(more));
    Ok(Rule {
        name: name.to_owned(),
        on: rule.on.clone(),
        sql,
        handler: rule
            .handler
            .as_ref()
            .map(|name| HandlerRef { name: name.value.clone(), reads: returned }),
        each: list.map(|list| Each { list, reads: elements, more }),
        when,
        effect,
        proof,
    })
}

fn conditions(when: &[ConditionDecl], places: &mut Places<'_>) -> Vec<Condition> {
    let condition = |when: &ConditionDecl| Condition {
        paths: when.paths.iter().map(|path| places.add(path)).collect(),
        any_of: when.any_of.clone(),
        not: when.not,
    };
    when.iter().map(condition).collect()
}

fn deletions(newest: &Newest, is_final: bool, places: &mut Places<'_>) -> Delete {
    let mut delete = Delete { is_final, ..Delete::default() };
    for decl in &newest.delete {
        match decl {
            DeleteDecl::Type(glob) => delete.types.push(glob.value.clone()),
            DeleteDecl::When(when) => delete.when.0.push(conditions(when, places)),
        }
    }
    delete
}

fn tie_step(step: &StepDecl, places: &mut Places<'_>) -> TieStep {
    match step {
        StepDecl::Type(order) => TieStep::Type { order: order.clone() },
        StepDecl::Value { value: text, order } => {
            TieStep::Value { value: value(text, false, places), order: order.clone() }
        }
    }
}

/// A value. `exact`: where it goes, a text can be stored, so no number is rounded.
fn value(text: &ValueDecl, exact: bool, places: &mut Places<'_>) -> Value {
    let mut add = |paths: &[ValuePath]| paths.iter().map(|path| places.add(path)).collect();
    match text {
        ValueDecl::Constant(json) => Value::Constant(json.clone()),
        ValueDecl::Event(field) => Value::Event(*field),
        ValueDecl::Paths { paths, form: Form::AsIs } if exact => {
            Value::Paths { paths: add(paths), form: Form::Column(Affinity::Text) }
        }
        ValueDecl::Paths { paths, form } => Value::Paths { paths: add(paths), form: form.clone() },
        ValueDecl::Money { amount, currency } => {
            Value::Money { amount: add(amount), currency: add(currency) }
        }
    }
}

/// The value of a column. `is_whole`: it is part of a key, or is added up.
fn value_of_column(
    text: &ValueDecl,
    affinity: Affinity,
    is_whole: bool,
    places: &mut Places<'_>,
) -> Value {
    match value(text, false, places) {
        // The column stores the text of a number as the number, so both are one key.
        Value::Paths { paths, form: Form::AsIs | Form::Text }
            if is_whole && affinity == Affinity::Integer =>
        {
            Value::Paths { paths, form: Form::Decimal { scale: 0 } }
        }
        Value::Paths { paths, form: Form::AsIs } => {
            Value::Paths { paths, form: Form::Column(affinity) }
        }
        value => value,
    }
}

fn suppression(
    decl: &SuppressionDecl,
    places: &mut Places<'_>,
) -> Result<Suppression, Vec<ConfigError>> {
    // An operator's lift has the time at which it happens.
    if let Some(version) = decl.version.as_ref().filter(|version| !version.value.is_time()) {
        let problem = version.error("the version of a suppression is not a time");
        return Err(vec![
            problem.hint("expected the form of a time: { rfc3339 = \"created_at\" }"),
        ]);
    }
    let mut optional =
        |decl: &Option<Located<ValueDecl>>| Some(value(&decl.as_ref()?.value, false, places));
    let (group, version) = (optional(&decl.group), optional(&decl.version));
    let address = value(&decl.address.value, true, places);
    Ok(Suppression { address, reasons: decl.reasons.clone(), group, version })
}

fn compile_table(
    (whole, agreed): (&RuleDecl, Agreed<'_>),
    rule: &TableDecl,
    (managed, orphans): (&Managed<'_>, Vec<Sql>),
    (schema, surroundings): (&Schema, &Surroundings),
    places: &mut Places<'_>,
) -> Result<(Vec<Sql>, Effect, Option<Proof>), Vec<ConfigError>> {
    let mut errors = Vec::new();
    let (name, table_name) = (&whole.name, &rule.table.value);
    if OWN_TABLES.contains(&table_name.as_str()) {
        let error = rule.table.error(format!("`{table_name}` is Hookmill's own table"));
        return Err(vec![error.hint("use a table of your application")]);
    }
    let Some(table) = schema.tables.get(table_name) else {
        return Err(vec![no_table(&rule.table, schema)]);
    };
    if table_name.eq_ignore_ascii_case("excluded") || table_name.starts_with('_') {
        let error =
            rule.table.error(format!("`{table_name}` has a meaning in Hookmill's statements"));
        return Err(vec![error.hint("use another name, without `_` at its beginning")]);
    }

    // Columns that other rules of the table set, and this one does not.
    let others = managed.columns.iter().copied();
    let sets =
        |name: &str| rule.newest().is_some_and(|newest| names(&newest.set).any(|set| set == name));
    let unset: Vec<_> = others.filter(|name| !sets(name)).collect();
    check_columns(rule, &unset, table, &mut errors);
    check_kind(whole, rule, table, &mut errors);
    let provider = refetch_provider(whole, rule, surroundings).unwrap_or_else(|fault| {
        errors.push(fault);
        None
    });
    if !errors.is_empty() {
        return Err(errors);
    }

    let mut column = |(name, text): &(Located<String>, Located<ValueDecl>), required| {
        let affinity = table.column(&name.value).map_or(Affinity::AsIs, |column| column.affinity);
        let is_whole = required || matches!(rule.write, TableWrite::Count { .. });
        let value = value_of_column(&text.value, affinity, is_whole, places);
        Column { name: name.value.clone(), value, required }
    };
    // In rows of a list, the owner's columns come before the element's.
    let is_list = matches!(rule.write, TableWrite::List { .. });
    let (owner, of_element): (Vec<_>, Vec<_>) =
        rule.key.iter().partition(|(_, text)| !is_list || !text.value.is_of_element());
    let mut columns: Vec<_> = owner.iter().map(|key| column(key, true)).collect();
    let owners = columns.len();
    columns.extend(of_element.iter().map(|key| column(key, true)));
    columns.extend(rule.columns().iter().map(|value| column(value, false)));
    let mut guard = |newest: &Newest| Guard {
        version: value(&newest.version.value, false, places),
        delete: deletions(newest, agreed.is_final, places),
        tie: agreed.tie.iter().map(|step| tie_step(step, places)).collect(),
        refetch: provider.map(|provider| Refetch { provider, id: id_of_object(provider, places) }),
    };
    let target = Target {
        parents: parents(managed, schema),
        has_several_sources: whole.on.iter().any(|on| on.source != whole.on[0].source),
        rule: &name.value,
        table: table_name,
        key: owner.iter().chain(&of_element).map(|(name, _)| name.value.as_str()).collect(),
        set: names(rule.columns()).collect(),
        unset,
    };
    let proof = proof(whole, rule, &target, (managed, &columns, owners), surroundings);
    let table = table_name.clone();
    let (sql, effect) = match &rule.write {
        TableWrite::Count { .. } => {
            (vec![target.count().into()], Effect::Row { table, guard: None, columns })
        }
        TableWrite::Upsert { newest, .. } => {
            let guard = Some(guard(newest));
            let ties = provider.map(|_| target.ties());
            let orphans = orphans.into_iter();
            let orphans =
                orphans.filter(|sql| sql.takes == Takes::All || !newest.delete.is_empty());
            let upsert = Sql::from(target.upsert(managed.removes));
            let sql = ties.into_iter().chain([upsert]).chain(orphans);
            (sql.collect(), Effect::Row { table, guard, columns })
        }
        TableWrite::Remove { newest } => {
            let guard = Some(guard(newest));
            let [keep, delete] = target.remove();
            let sql = vec![target.upsert(true).into(), keep, delete];
            (sql, Effect::Row { table, guard, columns })
        }
        TableWrite::Update { newest } => {
            let guard = Some(guard(newest));
            (vec![target.update().into()], Effect::Row { table, guard, columns })
        }
        TableWrite::List { newest, .. } => {
            let guard = guard(newest);
            let rows = columns.split_off(owners);
            let ties = provider.map(|_| target.ties_of_list(owners));
            let lists = target.replace(owners, whole.more.is_some());
            let more = provider.filter(|_| whole.more.is_some());
            let incomplete = more.map(|_| target.incomplete(owners));
            let sql = ties.into_iter().chain(incomplete).chain(lists).collect();
            let keys = target.key.len() - owners;
            (sql, Effect::Rows { table, guard, owner: columns, columns: rows, keys })
        }
    };
    Ok((sql, effect, proof))
}

/// The statements of a reconciliation, if a list of the provider's API contains the rule's objects.
fn proof(
    whole: &RuleDecl,
    rule: &TableDecl,
    target: &Target<'_>,
    (managed, columns, owners): (&Managed<'_>, &[Column], usize),
    surroundings: &Surroundings,
) -> Option<Proof> {
    let provider = whole.on.iter().find_map(|on| {
        let provider = surroundings.apis.get(&on.source).copied()?;
        let mut lists = api::lists(provider);
        lists.any(|list| on.matches(&on.source, &list.event_type)).then_some(provider)
    })?;
    let of = |path: &str| {
        let mut found = columns.iter().filter(|column| column.value.to_string() == path);
        found.next().map(|column| column.name.as_str())
    };
    let compare = match &rule.write {
        TableWrite::Count { .. } => return None,
        TableWrite::List { .. } => target.compare_list(owners, whole.more.is_some()),
        TableWrite::Update { .. } => target.compare(Missing::Never),
        _ if managed.removes => target.compare(Missing::UnlessDeleted),
        _ => target.compare(Missing::Always),
    };
    let mut proof = Proof { compare, listed: None, rest: None };
    let is_upsert = matches!(rule.write, TableWrite::Upsert { .. } | TableWrite::Remove { .. });
    let id = of(&format!("{}.id", api::object(provider)));
    if is_upsert
        && managed.sources.len() == 1
        && id.is_some()
        && target.key.as_slice() == id.as_slice()
    {
        let account = of("account").filter(|_| provider == Provider::Stripe);
        proof.listed = Some(target.listed());
        proof.rest = Some(target.rest(account));
    }
    Some(proof)
}

/// The API for `refetch`: set in the rule, or implied by a preset or by lists that may be incomplete, if there is one.
fn refetch_provider(
    rule: &RuleDecl,
    table: &TableDecl,
    surroundings: &Surroundings,
) -> Result<Option<Provider>, ConfigError> {
    let (TableWrite::Upsert { refetch: given, .. } | TableWrite::List { refetch: given, .. }) =
        &table.write
    else {
        return Ok(None);
    };
    let mut providers: Vec<_> =
        rule.on.iter().map(|on| Some(*surroundings.apis.get(&on.source)?)).collect();
    providers.dedup();
    let Some(given) = given else {
        let [Some(provider)] = providers.as_slice() else { return Ok(None) };
        let knows = rule.on.iter().all(|on| api::knows(*provider, &on.event_type));
        // An incomplete list is made whole, whatever the rule says about ties.
        let wanted = rule.preset || rule.more.is_some();
        return Ok((wanted && rule.handler.is_none() && knows).then_some(*provider));
    };
    let [Some(provider)] = providers.as_slice() else {
        let problem = given.error("`refetch` needs the API of one provider");
        let sources: BTreeSet<_> = rule.on.iter().map(|on| on.source.as_str()).collect();
        let names: Vec<_> = sources.iter().map(|name| format!("[sources.{name}.api]")).collect();
        return Err(problem.hint(format!("add {}, all of the same provider", names.join(" and "))));
    };
    match rule.on.iter().find(|on| !api::knows(*provider, &on.event_type)) {
        None => Ok(Some(*provider)),
        Some(on) => {
            let (name, objects) = (provider.as_str(), api::objects(*provider));
            let problem = format!("the API of {name} has no object for {:?}", on.event_type);
            Err(given.error(problem).hint(format!("its objects are {objects}")))
        }
    }
}

/// The path of the object's id.
fn id_of_object(provider: Provider, places: &mut Places<'_>) -> PathRead {
    let steps = api::object(provider).split('.').chain(["id"]);
    let steps = steps.map(|step| Step::Key(step.to_owned())).collect();
    places.add(&ValuePath::Body(Path { steps, select: None }))
}

/// The channel is configured, and an email's template exists. The variables of templates are checked where their texts are
/// read.
fn compile_send(
    send: &SendDecl,
    surroundings: &Surroundings,
    places: &mut Places<'_>,
) -> Result<Effect, Vec<ConfigError>> {
    let mut errors = Vec::new();
    let named = |data: Option<&NamedValues>, places: &mut Places<'_>| -> Vec<_> {
        let data = data.into_iter().flatten();
        data.map(|(n, text)| (n.value.clone(), value(&text.value, true, places))).collect()
    };
    let (send, data, delay) = match send {
        SendDecl::Email(email) => {
            let template = &email.template;
            if surroundings.emails.is_none() {
                let problem = template.error("`[email]` is not configured");
                errors.push(problem.hint("add [email] with `provider` and `from`"));
            }
            if !surroundings.templates.contains(template.value.as_str()) {
                let problem =
                    template.error(format!("no template has the name `{}`", template.value));
                let names = surroundings.templates.iter().map(String::as_str);
                errors.push(problem.suggest(&template.value, names));
            }
            // https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send: `asm.group_id` is an integer.
            let is_number = |group: &str| group.parse::<u64>().is_ok();
            let sendgrid = surroundings
                .emails
                .as_ref()
                .is_some_and(|names| names.contains(&Provider::SendGrid));
            if let Some(group) =
                email.group.as_ref().filter(|group| sendgrid && !is_number(&group.value))
            {
                let problem = group.error(format!("found {:?}", group.value));
                errors.push(problem.hint(
                    "expected the number of an unsubscribe group of SendGrid, such as \"4711\"",
                ));
            }
            let send = Send::Email {
                template: template.value.clone(),
                group: email.group.as_ref().map(|group| group.value.clone()),
                to: value(&email.to.value, true, places),
                cc: email.cc.as_ref().map(|cc| value(&cc.value, true, places)),
                reply_to: email.reply_to.as_ref().map(|text| value(&text.value, true, places)),
                recipients: email.recipients,
            };
            (send, named(email.data.as_ref().map(|data| &data.value), places), email.delay)
        }
        SendDecl::Sms(sms) => {
            if !surroundings.sms {
                let problem = sms.to.error("`[sms]` is not configured");
                errors.push(problem.hint("add [sms] with `account` and `from`"));
            }
            let to = value(&sms.to.value, true, places);
            let send = Send::Sms { to, body: sms.body.value.clone() };
            (send, named(sms.data.as_ref().map(|data| &data.value), places), sms.delay)
        }
        SendDecl::Track(track) => {
            let provider = track.provider.value;
            if !surroundings.tracking.contains(&provider) {
                let name = provider.as_str();
                let problem =
                    track.provider.error(format!("`[tracking.{name}]` is not configured"));
                errors.push(problem.hint(format!("add [tracking.{name}]")));
            }
            let (event, user) = (track.event.clone(), value(&track.user.value, true, places));
            let send = Send::Track { provider, event, user };
            (send, named(track.properties.as_ref(), places), track.delay)
        }
    };
    if errors.is_empty() { Ok(Effect::Send { send, data, delay }) } else { Err(errors) }
}

/// The error about the name of a table that does not exist.
pub fn no_table(name: &Located<String>, schema: &Schema) -> ConfigError {
    if schema.views.contains_key(&name.value) {
        let problem = name.error(format!("`{}` is a view", name.value));
        return problem.hint("rules write tables; name the table that the view reads");
    }
    let error = name.error(format!("there is no table `{}`", name.value));
    let tables = schema.tables.keys().map(String::as_str);
    match nearest(&name.value, tables.filter(|name| !OWN_TABLES.contains(name))) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint(
            "create it in a migration; `migrations` in `[database]` names the folder of yours",
        ),
    }
}

/// Every column exists, the key is the table's key, and no required column is missing.
fn check_columns(rule: &TableDecl, unset: &[&str], table: &Table, errors: &mut Vec<ConfigError>) {
    let written: Vec<_> = rule.key.iter().chain(rule.columns()).map(|(name, _)| name).collect();
    for name in &written {
        if GUARD_COLUMNS.contains(&name.value.as_str()) {
            let error = name.error(format!("Hookmill maintains `{}`", name.value));
            errors.push(
                error.hint("remove it; its value follows from `version`, `tie` and `delete`"),
            );
        } else if table.generated.contains(&name.value) {
            let error = name.error(format!("`{}` is a generated column", name.value));
            errors.push(error.hint("remove it; SQLite computes its value"));
        } else if table.column(&name.value).is_none() {
            let error =
                name.error(format!("table `{}` has no column `{}`", rule.table.value, name.value));
            let columns = table.columns.iter().map(|column| column.name.as_str());
            let columns = columns.filter(|name| !GUARD_COLUMNS.contains(name));
            errors.push(match nearest(&name.value, columns) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint(format!(
                    "add it in a migration: ALTER TABLE {} ADD COLUMN {} …",
                    rule.table.value, name.value
                )),
            });
        }
    }
    for (_, value) in &rule.key {
        if matches!(value.value, ValueDecl::Paths { form: Form::Json, .. }) {
            let problem = value.error("a key cannot be JSON: one value has many spellings");
            errors.push(problem.hint("use a path, or { text = … }"));
        }
    }
    for (name, value) in rule.columns() {
        let Some(column) = table.column(&name.value) else { continue };
        if let Some(hint) = unsuitable(&value.value, column) {
            let problem = value.error(format!("the column `{}` is {}", column.name, column.kind));
            errors.push(problem.hint(hint));
        }
    }
    let key = rule.key.iter().filter_map(|(name, _)| Some((name, table.column(&name.value)?)));
    // With `update`, the application decides which rows there are.
    if !matches!(rule.write, TableWrite::Update { .. }) {
        errors.extend(
            key.filter_map(|(name, column)| untyped(name, column).or_else(|| folding(name, table))),
        );
    }
    let key = table.columns.iter().filter(|column| column.key).map(|column| column.name.as_str());
    let key: BTreeSet<_> = key.collect();
    let named: BTreeSet<_> = names(&rule.key).collect();
    if matches!(rule.write, TableWrite::Update { .. }) {
        let is_named = |columns: &Vec<String>| {
            columns.len() == named.len() && columns.iter().all(|name| named.contains(name.as_str()))
        };
        if key != named && !table.unique.iter().any(is_named) {
            let error = rule.table.error(format!(
                "({}) is neither the primary key of `{}` nor UNIQUE",
                Vec::from_iter(named).join(", "),
                rule.table.value
            ));
            errors.push(error.hint("`key` must identify exactly one row"));
        }
        return;
    }
    let columns = |names: &BTreeSet<&str>| names.iter().copied().collect::<Vec<_>>().join(", ");
    if key.is_empty() {
        let error = rule.table.error(format!("`{}` has no primary key", rule.table.value));
        let hint = format!("add to its definition: PRIMARY KEY ({})", columns(&named));
        errors.push(error.hint(hint));
    } else if key != named {
        let error = rule.table.error(format!(
            "the primary key of `{}` is ({}), and `key` names ({})",
            rule.table.value,
            columns(&key),
            columns(&named)
        ));
        errors.push(error.hint(if key.is_disjoint(&named) {
            format!("Hookmill finds rows by their primary key; make it ({})", columns(&named))
        } else {
            "`key` must contain the whole primary key, and nothing else".to_owned()
        }));
    }
    for column in table.columns.iter().filter(|column| column.not_null && !column.key) {
        let name = column.name.as_str();
        if column.default && !unset.contains(&name) {
            continue;
        }
        if !GUARD_COLUMNS.contains(&name) && !written.iter().any(|written| written.value == name) {
            let error = rule
                .table
                .error(format!("column `{name}` is NOT NULL, but the rule does not set it"));
            errors.push(error.hint(format!("add `{name}` to `set`, or allow NULL in the column")));
        }
    }
}

/// The hint if a column cannot store such a value as it is.
fn unsuitable(value: &ValueDecl, column: &TableColumn) -> Option<&'static str> {
    let is_real = column.affinity == Affinity::Real;
    match value {
        _ if column.kind.contains("BLOB") => Some("rules store texts and numbers; use TEXT"),
        ValueDecl::Paths { form: Form::Text, .. } if !stores_text(column) => {
            Some("it would store the text of a number as a number; use TEXT, or remove `text`")
        }
        ValueDecl::Paths { form: Form::Json, .. }
            if is_real || column.affinity == Affinity::Integer =>
        {
            Some("JSON is text; use TEXT")
        }
        ValueDecl::Paths { form: Form::Decimal { .. }, .. } | ValueDecl::Money { .. }
            if is_real =>
        {
            Some("it would round a large whole number; use INTEGER")
        }
        ValueDecl::Constant(json) if is_real && Form::Column(column.affinity).is_lossy(json) => {
            Some("it would round the number; use INTEGER")
        }
        ValueDecl::Paths { form: Form::Time(time), .. }
            if time.date.is_some() && !stores_text(column) =>
        {
            Some("a date is text; use TEXT")
        }
        ValueDecl::Constant(json) if json.starts_with('"') && !stores_text(column) => {
            Some("the value is text; use TEXT")
        }
        ValueDecl::Event(field) if *field != EventField::ReceivedAt && !stores_text(column) => {
            Some("the value is text; use TEXT")
        }
        _ => None,
    }
}

/// A rule either keeps the newest state of a row or counts, and its table must fit.
fn check_kind(whole: &RuleDecl, rule: &TableDecl, table: &Table, errors: &mut Vec<ConfigError>) {
    if table.drops_rows {
        let problem = format!(
            "`{}` has ON CONFLICT IGNORE or REPLACE, so an event could drop the row of another object",
            rule.table.value
        );
        errors.push(rule.table.error(problem).hint("remove it from the table's definition"));
    }
    let missing: Vec<_> =
        GUARD_COLUMNS.into_iter().filter(|name| table.column(name).is_none()).collect();
    for column in table.columns.iter().filter(|column| GUARD_COLUMNS.contains(&&*column.name)) {
        let (needed, suits) = match column.name.as_str() {
            "_event_id" => ("TEXT", [Affinity::Text, Affinity::AsIs].as_slice()),
            _ => ("INTEGER", [Affinity::Integer, Affinity::Numeric, Affinity::AsIs].as_slice()),
        };
        let name = rule.table.place().map(|()| column.name.clone());
        errors.extend(folding(&name, table));
        if !suits.contains(&column.affinity) {
            let problem = format!(
                "the column `{}` of `{}` is {}, so versions would not compare",
                column.name, rule.table.value, column.kind
            );
            errors.push(rule.table.error(problem).hint(format!("use {needed}")));
        }
    }
    if let TableWrite::Count { .. } = &rule.write {
        for (name, _) in rule.columns() {
            let column = table.column(&name.value);
            if let Some(column) = column.filter(|column| column.affinity != Affinity::Integer) {
                let problem = format!("the column `{}` is {}", name.value, column.kind);
                errors.push(name.error(problem).hint(
                    "add to an INTEGER: sums of other numbers depend on the order of the events",
                ));
            }
        }
    }
    match &rule.write {
        TableWrite::List { .. } => check_list(whole.more.is_some(), rule, table, errors),
        TableWrite::Count { .. } if missing.len() < GUARD_COLUMNS.len() => {
            let error = rule
                .table
                .error(format!("rules write the table `{}` by version", rule.table.value));
            errors.push(error.hint("count in a separate table"));
        }
        TableWrite::Upsert { .. } | TableWrite::Remove { .. } | TableWrite::Update { .. }
            if !missing.is_empty() =>
        {
            let error = rule.table.error(format!(
                "table `{}` lacks {}",
                rule.table.value,
                missing.join(", ")
            ));
            errors.push(error.hint(
                "a table with a version needs: _version INTEGER NOT NULL, _precedence INTEGER NOT NULL, \
                 _event_id TEXT NOT NULL, _deleted INTEGER NOT NULL",
            ));
        }
        TableWrite::Count { .. }
        | TableWrite::Upsert { .. }
        | TableWrite::Remove { .. }
        | TableWrite::Update { .. } => {}
    }
}

/// Whether a column stores texts as they are.
fn stores_text(column: &TableColumn) -> bool {
    matches!(column.affinity, Affinity::Text | Affinity::AsIs)
}

/// An error if a column of a key has no type that gives a text one spelling. Guards and parents compare keys by their texts.
fn untyped(name: &Located<String>, column: &TableColumn) -> Option<ConfigError> {
    if matches!(column.affinity, Affinity::Integer | Affinity::Text) {
        return None;
    }
    let kind = if column.kind.is_empty() { "missing" } else { &*column.kind };
    let problem = name.error(format!("the type of the column `{}` is {kind}", column.name));
    Some(problem.hint(if stores_text(column) {
        "use TEXT or INTEGER; otherwise a number and its text would be two keys"
    } else {
        "use TEXT or INTEGER; otherwise the texts \"007\" and \"7\" would be one key"
    }))
}

/// An error if the columns of a child and of its parent may store one key as two texts.
fn unlike(
    (name, own): (&Located<String>, &TableColumn),
    (parent, key): (&Located<String>, &TableColumn),
) -> Option<ConfigError> {
    untyped(parent, key).or_else(|| untyped(name, own)).or_else(|| {
        let is_whole = |column: &TableColumn| column.affinity == Affinity::Integer;
        (is_whole(own) != is_whole(key)).then(|| {
            let problem = format!(
                "`{}` is {}, and the key of `{}` is {}",
                own.name, own.kind, parent.value, key.kind
            );
            name.error(problem).hint("use the same type for both")
        })
    })
}

/// An error if different texts are equal in a column that is compared.
fn folding(name: &Located<String>, table: &Table) -> Option<ConfigError> {
    table.folding.contains(&name.value).then(|| {
        let problem = format!("the column `{}` has a collating sequence", name.value);
        name.error(problem).hint("remove COLLATE; otherwise two objects or two events could be one")
    })
}

/// The rows of a list are written and removed together, and `row_guards` stores their order. If lists may be incomplete, each
/// row has an order too.
fn check_list(partial: bool, rule: &TableDecl, table: &Table, errors: &mut Vec<ConfigError>) {
    let needed = if partial { &ORDER_COLUMNS[..] } else { &[] };
    let is_there = |name: &&str| table.column(name).is_some();
    let missing: Vec<_> = needed.iter().copied().filter(|name| !is_there(name)).collect();
    if !missing.is_empty() {
        let problem = format!("table `{}` lacks {}", rule.table.value, missing.join(", "));
        errors.push(rule.table.error(problem).hint(
            "a list with `more` needs, for each row: _version INTEGER, _precedence INTEGER, _event_id TEXT",
        ));
    }
    let other = GUARD_COLUMNS.into_iter().filter(|name| !needed.contains(name)).filter(is_there);
    let other: Vec<_> = other.collect();
    if !other.is_empty() {
        let problem = format!("rules write the table `{}` by version", rule.table.value);
        errors.push(rule.table.error(problem).hint(if other == ORDER_COLUMNS {
            "its lists may be incomplete: add the path that says so, such as more = \"data.object.items.has_more\"".to_owned()
        } else {
            format!("the rows of a list share one version; remove the columns {}", other.join(", "))
        }));
    }
    let of_element = rule.key.iter().filter(|(_, text)| text.value.is_of_element()).count();
    if of_element == 0 || of_element == rule.key.len() {
        let error = rule.table.error("`key` must identify the owner of the list and the element");
        errors.push(error.hint("key = { subscription_id = \"data.object.id\", id = \"@.id\" }"));
    } else {
        let whose = rule.key.iter().filter(|(_, text)| !text.value.is_of_element());
        let whose: BTreeSet<_> = whose.map(|(name, _)| name.value.as_str()).collect();
        let begins = |index: &Vec<String>| {
            whose.len() <= index.len()
                && index[..whose.len()].iter().all(|name| whose.contains(name.as_str()))
        };
        if !table.indexes.iter().any(begins) {
            let whose = Vec::from_iter(whose).join(", ");
            let error = rule.table.error(format!(
                "no index of `{}` begins with ({whose}), so each event would read the whole table",
                rule.table.value
            ));
            errors.push(error.hint(format!(
                "begin the primary key with the columns of the list's owner, or add an index: CREATE INDEX … ON {} ({whose})",
                rule.table.value
            )));
        }
    }
}

/// The columns of a table's key.
fn keys(table: &Table) -> Vec<&str> {
    table.columns.iter().filter(|column| column.key).map(|column| column.name.as_str()).collect()
}

/// A child whose parent is gone is deleted, in any order of their events. That needs parents that never return, and rows of
/// both that stay.
fn check_parents(rules: &[RuleDecl], schema: &Schema) -> Vec<ConfigError> {
    let agreed = agree::agreed(rules);
    let of_table = |name: &str| -> Vec<_> {
        let rules = rules.iter().zip(&agreed).filter_map(|(rule, agreed)| match &rule.effect {
            EffectDecl::Table(table) => Some((rule, *agreed, table)),
            _ => None,
        });
        rules.filter(|(_, _, table)| table.table.value == name).collect()
    };
    let stays = |table: &TableDecl| matches!(table.write, TableWrite::Upsert { .. });
    let mut errors = Vec::new();
    for rule in rules {
        let EffectDecl::Table(table) = &rule.effect else { continue };
        for (column, parent) in table.newest().into_iter().flat_map(|newest| &newest.parents) {
            let (child, name) = (&table.table.value, &parent.value);
            if !of_table(child).iter().all(|(_, _, table)| stays(table)) {
                let problem =
                    column.error(format!("not all rules of `{child}` keep its deleted rows"));
                errors.push(problem.hint(
                    "`parents` cannot be combined with `each`, `update` and `tombstone = false`",
                ));
            }
            if let Some(found) = schema.tables.get(child)
                && !found.indexes.iter().any(|index| index.first() == Some(&column.value))
            {
                let problem = column.error(format!(
                    "no index of `{child}` begins with {}, so each deletion of a parent would read the whole table",
                    column.value
                ));
                errors.push(problem.hint(format!("CREATE INDEX … ON {child} ({})", column.value)));
            }
            let writers = of_table(name);
            let deleting = |(_, _, table): &&(_, _, &TableDecl)| {
                table.newest().is_some_and(|newest| !newest.delete.is_empty())
            };
            let missing = writers.iter().filter(deleting).find(|(_, agreed, _)| !agreed.is_final);
            let own = schema.tables.get(child).and_then(|table| table.column(&column.value));
            let key = schema.tables.get(name);
            let key = key.and_then(|table| table.columns.iter().find(|column| column.key));
            if let (Some(own), Some(key)) = (own, key) {
                errors.extend(unlike((column, own), (parent, key)));
            }
            if is_above(child, name, rules) {
                let problem = parent.error(format!("`{child}` is its own parent"));
                errors.push(problem.hint(
                    "a row cannot be deleted through a row of the same table; remove one of these `parents`",
                ));
            } else if !schema.tables.contains_key(name) {
                errors.push(no_table(parent, schema));
            } else if writers.is_empty() && !rule.preset {
                errors.push(parent.error(format!("no rule writes the table `{name}`")));
            } else if schema.tables.get(name).is_none_or(|table| keys(table).len() != 1) {
                errors.push(parent.error(format!("the key of `{name}` is more than one column")));
            } else if !writers.iter().all(|(_, _, table)| stays(table)) {
                let problem =
                    parent.error(format!("not all rules of `{name}` keep its deleted rows"));
                errors.push(problem.hint("a parent's table is written without `each`, `add`, `update` and `tombstone = false`"));
            } else if let Some((writer, ..)) = missing {
                let problem = parent.error(format!("a deleted row of `{name}` may return"));
                errors.push(problem.hint(format!(
                    "add `final = true` to rule `{}`; otherwise the children would depend on the order of arrival",
                    writer.name.value
                )));
            }
        }
    }
    errors
}

/// Whether a table is another one, or is among its parents and theirs.
fn is_above(table: &str, other: &str, rules: &[RuleDecl]) -> bool {
    let mut above = BTreeSet::from([other]);
    loop {
        let before = above.len();
        for rule in rules {
            let EffectDecl::Table(decl) = &rule.effect else { continue };
            let parents = decl.newest().into_iter().flat_map(|newest| &newest.parents);
            if above.contains(decl.table.value.as_str()) {
                above.extend(parents.map(|(_, parent)| parent.value.as_str()));
            }
        }
        if above.len() == before {
            return above.contains(table);
        }
    }
}

/// A row is a function of the greatest event for its key. So all rules of a table must set the same columns; otherwise a
/// column that only an older event sets would depend on whether that event arrived first.
fn disagreements<'r>(
    rules: impl Iterator<Item = (&'r RuleDecl, &'r TableDecl)>,
) -> Vec<ConfigError> {
    let mut first: BTreeMap<&str, (&RuleDecl, &TableDecl, &Newest)> = BTreeMap::new();
    let mut errors = Vec::new();
    let columns = |newest: &Newest| -> Vec<String> {
        let mut names: Vec<_> = names(&newest.set).map(ToOwned::to_owned).collect();
        names.sort_unstable();
        names
    };
    let rules = rules.filter_map(|(whole, rule)| Some((whole, rule, rule.newest()?)));
    let (deleting, writing): (Vec<_>, Vec<_>) =
        rules.partition(|(_, _, newest)| newest.only_deletes());
    for (whole, rule, newest) in writing.into_iter().chain(deleting) {
        let (other_whole, other, others) =
            *first.entry(&rule.table.value).or_insert((whole, rule, newest));
        let (name, other_name) = (&whole.name, &other_whole.name);
        let partial = (whole.more.is_some() != other_whole.more.is_some()).then_some("has `more`");
        for what in differences(rule, other).into_iter().chain(partial) {
            let error = rule.table.error(format!(
                "rules `{}` and `{}` both write `{}`, but only one of them {what}",
                other_name.value, name.value, rule.table.value,
            ));
            errors.push(error.hint("all rules of a table must agree in this"));
        }
        let (mine, theirs) = (columns(newest), columns(others));
        if mine != theirs && !newest.only_deletes() {
            let differing: Vec<_> = mine
                .iter()
                .filter(|name| !theirs.contains(name))
                .chain(theirs.iter().filter(|name| !mine.contains(name)))
                .map(|name| format!("`{name}`"))
                .collect();
            let error = rule.table.error(format!(
                "rules `{}` and `{}` both write `{}`, but only one of them sets {}",
                other_name.value,
                name.value,
                rule.table.value,
                differing.join(", ")
            ));
            errors.push(error.hint(
                "the newest event sets the whole row, so all rules of a table must set the same columns; \
                 move the others to a separate table",
            ));
        }
    }
    errors
}

/// The differences between two rules that write the same table.
fn differences(one: &TableDecl, other: &TableDecl) -> Vec<&'static str> {
    let time =
        |rule: &TableDecl| rule.newest().is_some_and(|newest| newest.version.value.is_time());
    let scale = |rule: &TableDecl| match &rule.newest()?.version.value {
        ValueDecl::Paths { form: Form::Decimal { scale }, .. } => Some(*scale),
        ValueDecl::Paths { form: Form::AsIs, .. } => Some(0),
        _ => None,
    };
    let scales = scale(one).zip(scale(other));
    let of_element = |rule: &TableDecl| -> BTreeSet<String> {
        let keys = rule.key.iter().filter(|(_, text)| text.value.is_of_element());
        keys.map(|(name, _)| name.value.clone()).collect()
    };
    let is_list = |rule: &TableDecl| matches!(rule.write, TableWrite::List { .. });
    let updates = |rule: &TableDecl| matches!(rule.write, TableWrite::Update { .. });
    let removes = |rule: &TableDecl| matches!(rule.write, TableWrite::Remove { .. });
    let deletes = |rule: &TableDecl| rule.newest().is_some_and(|newest| !newest.delete.is_empty());
    let lists = is_list(one) && is_list(other);
    let differences = [
        ("has a time as its version", time(one) != time(other)),
        ("has this `scale` in its version", scales.is_some_and(|(one, other)| one != other)),
        ("has `each`", is_list(one) != is_list(other)),
        ("takes this key from the element", lists && of_element(one) != of_element(other)),
        ("has `update`", updates(one) != updates(other)),
        (
            "has `tombstone = false`",
            deletes(one) && deletes(other) && removes(one) != removes(other),
        ),
    ];
    differences.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what).collect()
}

fn names(values: &NamedValues) -> impl Iterator<Item = &str> {
    values.iter().map(|(name, _)| name.value.as_str())
}
