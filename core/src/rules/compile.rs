//! From rules as written to a [`Program`]: names checked against the schema, paths gathered, SQL made once.

use std::collections::{BTreeMap, BTreeSet};

use super::sql::{self, Target};
use super::{
    Column, Condition, Each, Effect, GUARD_COLUMNS, Guard, Handled, Path, PathRead, Places,
    Precedence, Program, Reads, Refetch, Rule, Send, Sql, Step, Value, ValuePath,
};
use crate::config::{
    ConditionText, Config, ConfigError, EffectText, Located, NamedValues, PrecedenceText, RuleText,
    SendText, TableText, ValueText,
};
use crate::outbound::Provider;
use crate::refetch;
use crate::schema::{OWN_TABLES, Schema, Table};

/// Compiles every rule of a configuration.
///
/// # Errors
///
/// Every fault of every rule: a table or column that the schema does not have, a key that is not the table's, a table that
/// rules could not write in any order, a handler that is none of `handlers`.
pub fn compile(
    config: &Config,
    schema: &Schema,
    handlers: &[&str],
) -> Result<Program, Vec<ConfigError>> {
    let mut program = Program { unmatched: config.unmatched.clone(), ..Program::default() };
    let mut errors = Vec::new();
    let tables = || {
        config.rules.iter().filter_map(|rule| match &rule.effect {
            EffectText::Table(table) => Some((&rule.name, table)),
            _ => None,
        })
    };
    let managed = managed(tables().map(|(_, table)| table));
    for rule in &config.rules {
        if let Some(name) = rule.handler.as_ref().filter(|name| !handlers.contains(&&*name.value)) {
            let problem = name.error(format!("there is no handler `{}`", name.value));
            errors.push(if handlers.is_empty() {
                problem.hint("this build has no handlers; add one in consumers/handlers")
            } else {
                problem.suggest(&name.value, handlers.iter().copied())
            });
        }
        match compile_rule(rule, config, &managed, schema, &mut program.reads) {
            Ok(rule) => program.rules.push(rule),
            Err(faults) => errors.extend(faults),
        }
    }
    let known = tables().filter(|(_, table)| schema.tables.contains_key(&table.table.value));
    errors.extend(disagreements(known));
    errors.sort();
    if errors.is_empty() { Ok(program) } else { Err(errors) }
}

/// What the rules of a table do together.
#[derive(Default)]
struct Managed<'r> {
    /// Every column that some rule sets.
    columns: BTreeSet<&'r str>,
    /// Whether some rule removes rows.
    removes: bool,
}

fn managed<'r>(rules: impl Iterator<Item = &'r TableText>) -> BTreeMap<&'r str, Managed<'r>> {
    let mut managed = BTreeMap::<_, Managed<'r>>::new();
    for rule in rules {
        let table = managed.entry(rule.table.value.as_str()).or_default();
        table.columns.extend(names(&rule.set));
        table.removes |= rule.kind() == Kind::Remove;
    }
    managed
}

/// `body` is where paths into the event's body get their places.
fn compile_rule(
    rule: &RuleText,
    config: &Config,
    managed: &BTreeMap<&str, Managed<'_>>,
    schema: &Schema,
    body: &mut Reads,
) -> Result<Rule, Vec<ConfigError>> {
    let (mut returned, mut elements) = (Reads::default(), Reads::default());
    let body = if rule.handler.is_some() { &mut returned } else { body };
    let mut places = Places { body, element: &mut elements };
    let name = rule.name.value.as_str();
    let (sql, effect) = match &rule.effect {
        EffectText::Table(table) => {
            let none = Managed::default();
            let managed = managed.get(table.table.value.as_str()).unwrap_or(&none);
            compile_table(rule, table, managed, (schema, config), &mut places)?
        }
        EffectText::Send(send) => {
            (vec![sql::outbox(name).into()], compile_send(send, config, &mut places)?)
        }
        EffectText::Outcome { of, by_provider_id, outcome } => {
            let of = value(&of.value, &mut places);
            let (by_provider_id, outcome) = (*by_provider_id, *outcome);
            let column = if by_provider_id { "provider_id" } else { "id" };
            (
                vec![sql::outcome(name, column).into()],
                Effect::Outcome { of, by_provider_id, outcome },
            )
        }
        EffectText::Suppress { address, reason } => {
            let address = value(&address.value, &mut places);
            (vec![sql::suppress(name).into()], Effect::Suppress { address, reason: reason.clone() })
        }
    };
    let condition = |when: &ConditionText| Condition {
        path: places.add(&when.path),
        any_of: when.any_of.clone(),
        not: when.not,
    };
    let when = rule.when.iter().map(condition).collect();
    let list = rule.each.as_ref().map(|list| places.add(&list.value));
    Ok(Rule {
        name: name.to_owned(),
        on: rule.on.clone(),
        sql,
        handler: rule
            .handler
            .as_ref()
            .map(|name| Handled { name: name.value.clone(), reads: returned }),
        each: list.map(|list| Each { list, reads: elements }),
        when,
        effect,
    })
}

fn value(text: &ValueText, places: &mut Places<'_>) -> Value {
    match text {
        ValueText::Constant(json) => Value::Constant(json.clone()),
        ValueText::Event(field) => Value::Event(*field),
        ValueText::Paths { paths, form } => {
            Value::Paths { paths: paths.iter().map(|path| places.add(path)).collect(), form: *form }
        }
    }
}

fn compile_table(
    whole: &RuleText,
    rule: &TableText,
    managed: &Managed<'_>,
    (schema, config): (&Schema, &Config),
    places: &mut Places<'_>,
) -> Result<(Vec<Sql>, Effect), Vec<ConfigError>> {
    let mut errors = Vec::new();
    let (name, table_name) = (&whole.name, &rule.table.value);
    if OWN_TABLES.contains(&table_name.as_str()) {
        let error = rule.table.error(format!("`{table_name}` is Hookmill's own table"));
        return Err(vec![error.hint("rules write the tables of your application")]);
    }
    let Some(table) = schema.tables.get(table_name) else {
        let error = rule.table.error(format!("there is no table `{table_name}`"));
        let tables =
            schema.tables.keys().map(String::as_str).filter(|name| !OWN_TABLES.contains(name));
        return Err(vec![error.suggest(table_name, tables)]);
    };

    // What other rules of the table set, and this one does not.
    let others = managed.columns.iter().copied();
    let unset: Vec<_> = others.filter(|name| !names(&rule.set).any(|set| set == *name)).collect();
    check_columns(rule, &unset, table, &mut errors);
    check_kind(name, rule, table, &mut errors);
    let asked = asked(whole, rule, config).unwrap_or_else(|fault| {
        errors.push(fault);
        None
    });
    if !errors.is_empty() {
        return Err(errors);
    }

    let mut column = |(name, text): &(Located<String>, Located<ValueText>), required| Column {
        name: name.value.clone(),
        value: value(&text.value, places),
        required,
    };
    // Of a list's rows, what they have in common stands before what each has of its own.
    let (owner, of_element): (Vec<_>, Vec<_>) = rule
        .key
        .iter()
        .partition(|(_, text)| rule.kind() != Kind::List || !text.value.is_of_element());
    let mut columns: Vec<_> = owner.iter().map(|key| column(key, true)).collect();
    let owners = columns.len();
    columns.extend(of_element.iter().map(|key| column(key, true)));
    columns.extend(rule.set.iter().chain(&rule.add).map(|value| column(value, false)));
    let guard = rule.version.as_ref().map(|version| Guard {
        version: value(&version.value, places),
        delete: rule.delete.iter().map(|glob| glob.value.clone()).collect(),
        precedence: match rule.precedence.as_ref().map(|precedence| &precedence.value) {
            None => Precedence::None,
            Some(PrecedenceText::Type(order)) => Precedence::Type { order: order.clone() },
            Some(PrecedenceText::Column { column, order }) => Precedence::Value {
                column: columns.iter().position(|c| c.name == *column).unwrap_or_default(),
                order: order.clone(),
            },
        },
        refetch: asked.map(|provider| Refetch { provider, id: id_of_object(provider, places) }),
    });
    let target = Target {
        rule: &name.value,
        table: table_name,
        key: owner.iter().chain(&of_element).map(|(name, _)| name.value.as_str()).collect(),
        set: names(&rule.set).chain(names(&rule.add)).collect(),
        unset,
    };
    let table = table_name.clone();
    Ok(match (rule.kind(), guard) {
        (Kind::List, Some(guard)) => {
            let rows = columns.split_off(owners);
            let ties = asked.map(|_| target.ties_of_list(owners));
            let sql = ties.into_iter().map(Sql::from).chain(target.replace(owners)).collect();
            (sql, Effect::Rows { table, guard, owner: columns, columns: rows })
        }
        (Kind::Update, guard) => {
            (vec![target.update().into()], Effect::Row { table, guard, columns })
        }
        (Kind::Upsert, guard) => {
            let ties = asked.map(|_| target.ties());
            let sql =
                ties.into_iter().chain([target.upsert(managed.removes)]).map(Sql::from).collect();
            (sql, Effect::Row { table, guard, columns })
        }
        (Kind::Remove, guard) => {
            let [keep, delete] = target.remove();
            (
                vec![target.upsert(true).into(), keep.into(), delete.into()],
                Effect::Row { table, guard, columns },
            )
        }
        (Kind::Count | Kind::List, guard) => {
            (vec![target.count().into()], Effect::Row { table, guard, columns })
        }
    })
}

/// Whose API is asked for the object if nothing else decides: if the rule says so, or if it is a preset's and there is one.
fn asked(
    rule: &RuleText,
    table: &TableText,
    config: &Config,
) -> Result<Option<Provider>, ConfigError> {
    let said = table.refetch.as_ref();
    let fits = matches!(table.kind(), Kind::Upsert | Kind::List) && rule.handler.is_none();
    let mut providers: Vec<_> =
        rule.on.iter().map(|on| Some(config.apis.get(&on.source)?.provider)).collect();
    providers.dedup();
    let Some(said) = said else {
        let [Some(provider)] = providers.as_slice() else { return Ok(None) };
        let knows = rule.on.iter().all(|on| refetch::knows(*provider, &on.event_type));
        return Ok((rule.preset && fits && knows).then_some(*provider));
    };
    if !fits {
        let problem = said.error("only a rule that keeps the newest state of rows asks for it");
        return Err(problem.hint("it goes neither with `update`, `tombstone`, `add` nor `handler`"));
    }
    let [Some(provider)] = providers.as_slice() else {
        let problem = said.error("it is not known whose API is to be asked");
        let sources: BTreeSet<_> = rule.on.iter().map(|on| on.source.as_str()).collect();
        let names: Vec<_> = sources.iter().map(|name| format!("[sources.{name}.api]")).collect();
        return Err(problem.hint(format!("add {}, of one provider", names.join(" and "))));
    };
    match rule.on.iter().find(|on| !refetch::knows(*provider, &on.event_type)) {
        None => Ok(Some(*provider)),
        Some(on) => {
            let (name, objects) = (provider.as_str(), refetch::objects(*provider));
            let problem =
                format!("the API of {name} has no object that {:?} is about", on.event_type);
            Err(said.error(problem).hint(format!("it can be asked about {objects}")))
        }
    }
}

/// Where the object's id is.
fn id_of_object(provider: Provider, places: &mut Places<'_>) -> PathRead {
    let steps = refetch::object(provider).split('.').chain(["id"]);
    let steps = steps.map(|step| Step::Key(step.to_owned())).collect();
    places.add(&ValuePath { element: false, path: Path { steps, select: None } })
}

/// What a rule does with the rows of its table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// It adds.
    Count,
    /// It makes them, and deletes them by a mark.
    Upsert,
    /// It makes them, and removes them.
    Remove,
    /// It changes those that are there.
    Update,
    /// It makes those of a list.
    List,
}

impl TableText {
    fn kind(&self) -> Kind {
        match () {
            () if self.version.is_none() => Kind::Count,
            () if self.of_list => Kind::List,
            () if self.update => Kind::Update,
            () if !self.tombstone => Kind::Remove,
            () => Kind::Upsert,
        }
    }
}

/// What is sent through is configured, and an email's template is there; what templates need is checked where their texts are
/// read.
fn compile_send(
    send: &SendText,
    config: &Config,
    places: &mut Places<'_>,
) -> Result<Effect, Vec<ConfigError>> {
    let mut errors = Vec::new();
    let named = |data: &NamedValues, places: &mut Places<'_>| -> Vec<_> {
        data.iter().map(|(n, text)| (n.value.clone(), value(&text.value, places))).collect()
    };
    let (send, data, delay) = match send {
        SendText::Email(email) => {
            let template = &email.template;
            if config.emails.is_none() {
                let problem = template.error("nothing says how emails are sent");
                errors.push(problem.hint("add [email] with `provider` and `from`"));
            }
            if !config.templates.contains_key(&template.value) {
                let problem = template.error(format!("there is no template `{}`", template.value));
                let names = config.templates.keys().map(String::as_str);
                errors.push(problem.suggest(&template.value, names));
            }
            let send = Send::Email {
                template: template.value.clone(),
                to: value(&email.to.value, places),
                cc: email.cc.as_ref().map(|cc| value(&cc.value, places)),
                reply_to: email.reply_to.as_ref().map(|text| value(&text.value, places)),
            };
            (send, named(&email.data.value, places), email.delay)
        }
        SendText::Sms(sms) => {
            if config.sms.is_none() {
                let problem = sms.to.error("nothing says how SMS are sent");
                errors.push(problem.hint("add [sms] with `account` and `from`"));
            }
            let to = value(&sms.to.value, places);
            let send = Send::Sms { to, body: sms.body.value.clone() };
            (send, named(&sms.data.value, places), sms.delay)
        }
        SendText::Track(track) => {
            let provider = track.provider.value;
            if !config.tracking.iter().any(|(known, _)| *known == provider) {
                let name = provider.as_str();
                let problem = track.provider.error(format!("nothing says how {name} is told"));
                errors.push(problem.hint(format!("add [tracking.{name}]")));
            }
            let (event, user) = (track.event.clone(), value(&track.user.value, places));
            let send = Send::Track { provider, event, user };
            (send, named(&track.properties, places), track.delay)
        }
    };
    if errors.is_empty() { Ok(Effect::Send { send, data, delay }) } else { Err(errors) }
}

/// Every column exists, the key is the table's key, and no column that must have a value is left out.
fn check_columns(rule: &TableText, unset: &[&str], table: &Table, errors: &mut Vec<ConfigError>) {
    let written: Vec<_> =
        rule.key.iter().chain(&rule.set).chain(&rule.add).map(|(name, _)| name).collect();
    for name in &written {
        if GUARD_COLUMNS.contains(&name.value.as_str()) {
            let error = name.error(format!("`{}` is kept by Hookmill", name.value));
            errors.push(error.hint("it follows from `version`, `tie` and `delete`"));
        } else if table.column(&name.value).is_none() {
            let error =
                name.error(format!("table `{}` has no column `{}`", rule.table.value, name.value));
            let columns = table.columns.iter().map(|column| column.name.as_str());
            errors.push(
                error.suggest(&name.value, columns.filter(|name| !GUARD_COLUMNS.contains(name))),
            );
        }
    }
    // What orders these rows stands beside the table, under the text of their key: 7 and "7" must be one key in the table too.
    if matches!(rule.kind(), Kind::List | Kind::Remove) {
        for (name, _) in &rule.key {
            let column = table.column(&name.value);
            if column.is_some_and(|column| matches!(column.kind.as_str(), "ANY" | "BLOB" | "")) {
                let error = name
                    .error(format!("column `{}` of the key has no type of its own", name.value));
                errors.push(
                    error.hint("a number and its text would be two keys: make it TEXT or INTEGER"),
                );
            }
        }
    }
    let key = table.columns.iter().filter(|column| column.key).map(|column| column.name.as_str());
    let key: BTreeSet<_> = key.collect();
    let named: BTreeSet<_> = names(&rule.key).collect();
    if rule.kind() == Kind::Update {
        let is_named = |columns: &Vec<String>| {
            columns.len() == named.len() && columns.iter().all(|name| named.contains(name.as_str()))
        };
        if key != named && !table.unique.iter().any(is_named) {
            let error = rule.table.error(format!(
                "({}) is neither the primary key of `{}` nor UNIQUE",
                Vec::from_iter(named).join(", "),
                rule.table.value
            ));
            errors.push(error.hint("`key` says which row an event is about, so there is one"));
        }
        return;
    }
    if key != named {
        let error = rule.table.error(format!(
            "the primary key of `{}` is ({}), and `key` names ({})",
            rule.table.value,
            Vec::from_iter(key).join(", "),
            Vec::from_iter(named).join(", ")
        ));
        errors.push(
            error.hint(
                "`key` has to name the whole primary key: it says which row an event is about",
            ),
        );
    }
    for column in table.columns.iter().filter(|column| column.not_null && !column.key) {
        let name = column.name.as_str();
        if column.default && !unset.contains(&name) {
            continue;
        }
        if !GUARD_COLUMNS.contains(&name) && !written.iter().any(|written| written.value == name) {
            let error = rule
                .table
                .error(format!("column `{name}` is NOT NULL, and the rule gives it no value"));
            errors.push(error.hint(format!("add `{name}` to `set`, or let the column be NULL")));
        }
    }
}

/// A rule either keeps the newest state of a row (`version`, `set`) or counts (`add`), and its table is made for that.
fn check_kind(
    rule_name: &Located<String>,
    rule: &TableText,
    table: &Table,
    errors: &mut Vec<ConfigError>,
) {
    let missing: Vec<_> =
        GUARD_COLUMNS.into_iter().filter(|name| table.column(name).is_none()).collect();
    if rule.version.is_some() {
        if let Some((name, _)) = rule.add.first() {
            let error = name.error("a rule with a `version` cannot `add`");
            errors.push(
                error.hint("count in a table of its own, by a rule without `version` and `set`"),
            );
        }
        if let Some(version) = &rule.version
            && matches!(version.value, ValueText::Constant(_))
            && rule.precedence.is_none()
        {
            let error = version.error("all events have the same version, and there is no `tie`");
            errors.push(
                error.hint(
                    "say what tells an older event from a newer one: tie = { precedence = … }",
                ),
            );
        }
        if rule.kind() == Kind::List {
            return check_list(rule_name, rule, table, errors);
        }
        if rule.update && !rule.tombstone {
            let error = rule_name.error("a rule that only updates removes no rows");
            errors.push(error.hint("leave `tombstone` away: `_deleted` says that it is deleted"));
        }
        if !missing.is_empty() {
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
        if let Some(precedence) = &rule.precedence
            && let PrecedenceText::Column { column, .. } = &precedence.value
            && !rule.set.iter().any(|(name, _)| name.value == *column)
        {
            let error = precedence.error(format!("`{column}` is not set by this rule"));
            errors
                .push(error.suggest(column, rule.set.iter().map(|(name, _)| name.value.as_str())));
        }
        return;
    }
    if rule.add.is_empty() {
        let error = rule_name.error("the rule has neither `version` nor `add`");
        errors.push(error.hint(
            "say which of two events is newer (version = \"created\"), or what to count (add = { total = 1 })",
        ));
    } else if let Some((name, _)) = rule.set.first() {
        let error = name.error("a rule that `set`s needs a `version`");
        errors.push(error.hint("without one, the order of arrival would decide what the row says"));
    }
    let tie = rule.precedence.is_some() || rule.refetch.is_some();
    if !rule.delete.is_empty() || tie || rule.update || !rule.tombstone {
        errors.push(rule_name.error("`delete`, `tie`, `update` and `tombstone` need a `version`"));
    }
    if missing.len() < GUARD_COLUMNS.len() {
        let error = rule.table.error(format!("table `{}` is kept by version", rule.table.value));
        errors.push(error.hint("count in a table of its own"));
    }
}

/// The rows of a list are written and removed together, and what orders them stands beside their table.
fn check_list(
    rule_name: &Located<String>,
    rule: &TableText,
    table: &Table,
    errors: &mut Vec<ConfigError>,
) {
    if GUARD_COLUMNS.iter().any(|name| table.column(name).is_some()) {
        let error = rule.table.error(format!("table `{}` is kept by version", rule.table.value));
        errors.push(error.hint(format!(
            "the rows of a list have a version together, so their table has none of the columns {}",
            GUARD_COLUMNS.join(", ")
        )));
    }
    let of_element = rule.key.iter().filter(|(_, text)| text.value.is_of_element()).count();
    if of_element == 0 || of_element == rule.key.len() {
        let error = rule.table.error("`key` has to say whose list it is, and which element");
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
                "begin the primary key with the columns that say whose list it is, or add an index: CREATE INDEX … ON {} ({whose})",
                rule.table.value
            )));
        }
    }
    if rule.update || !rule.tombstone {
        let error = rule_name.error("`update` and `tombstone` do not go with `each`");
        errors.push(error.hint("what is no longer in the list is removed"));
    }
    if let Some(precedence) = &rule.precedence
        && matches!(precedence.value, PrecedenceText::Column { .. })
    {
        let error = precedence.error("a list has no column that could decide");
        errors.push(error.hint("precedence = { type = [\"*.created\", \"*.updated\"] }"));
    }
}

/// A row is a function of the greatest event for its key. That needs every rule of a table to set the same columns;
/// otherwise what an older event alone could set would depend on whether it arrived first.
fn disagreements<'r>(
    rules: impl Iterator<Item = (&'r Located<String>, &'r TableText)>,
) -> Vec<ConfigError> {
    let mut first: BTreeMap<&str, (&Located<String>, &TableText)> = BTreeMap::new();
    let mut errors = Vec::new();
    let columns = |rule: &TableText| -> Vec<String> {
        let mut names: Vec<_> = rule.set.iter().map(|(name, _)| name.value.clone()).collect();
        names.sort_unstable();
        names
    };
    let only_deletes = |rule: &TableText| rule.delete.iter().any(|glob| glob.value == "*");
    let (deleting, writing): (Vec<_>, Vec<_>) =
        rules.filter(|(_, rule)| rule.version.is_some()).partition(|(_, rule)| only_deletes(rule));
    for (name, rule) in writing.into_iter().chain(deleting) {
        let (other_name, other) = *first.entry(&rule.table.value).or_insert((name, rule));
        for what in differences(rule, other) {
            let error = rule.table.error(format!(
                "rules `{}` and `{}` both write `{}`, and only one of them {what}",
                other_name.value, name.value, rule.table.value,
            ));
            errors.push(error.hint("all rules of a table keep it in the same way"));
        }
        let (mine, theirs) = (columns(rule), columns(other));
        if mine != theirs && !only_deletes(rule) {
            let differing: Vec<_> = mine
                .iter()
                .filter(|name| !theirs.contains(name))
                .chain(theirs.iter().filter(|name| !mine.contains(name)))
                .map(|name| format!("`{name}`"))
                .collect();
            let error = rule.table.error(format!(
                "rules `{}` and `{}` both write `{}`, and only one of them sets {}",
                other_name.value,
                name.value,
                rule.table.value,
                differing.join(", ")
            ));
            errors.push(error.hint(
                "the newest event decides about the whole row, so all rules of a table set the same columns; \
                 put the others into a table of their own",
            ));
        }
    }
    errors
}

/// In which ways two rules keep the same table differently.
fn differences(one: &TableText, other: &TableText) -> Vec<&'static str> {
    let time =
        |rule: &TableText| rule.version.as_ref().is_some_and(|version| version.value.is_time());
    let deletes = |rule: &TableText| !rule.delete.is_empty();
    let of_element = |rule: &TableText| -> BTreeSet<String> {
        let keys = rule.key.iter().filter(|(_, text)| text.value.is_of_element());
        keys.map(|(name, _)| name.value.clone()).collect()
    };
    let is_list = |rule: &TableText| rule.kind() == Kind::List;
    let lists = is_list(one) && is_list(other);
    let differences = [
        ("has a time as its version", time(one) != time(other)),
        ("has `each`", is_list(one) != is_list(other)),
        ("takes this key from the element", lists && of_element(one) != of_element(other)),
        ("has `update`", one.update != other.update),
        (
            "has `tombstone = false`",
            deletes(one) && deletes(other) && one.tombstone != other.tombstone,
        ),
    ];
    differences.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what).collect()
}

fn names(values: &NamedValues) -> impl Iterator<Item = &str> {
    values.iter().map(|(name, _)| name.value.as_str())
}
