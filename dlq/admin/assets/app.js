// The dashboard, a client of the admin API. Most of its data come from strangers: they enter the page as text, never as markup.

import { EVENT_STATES, LETTER_REASONS, LETTER_STATES, OUTBOX_STATES } from "/admin/words.js";

const API = "/admin/api/v1";
// The key in the tab's session storage.
const TOKEN = "hookmill-token";

const main = document.getElementById("main");
const nav = document.getElementById("sections");
const announcer = document.getElementById("announcer");
const who = document.getElementById("who");

// The name and the role of the token; undefined before the first response.
let actor;

// ---- The API

// An error of the API (RFC 9457).
class Problem extends Error {
  constructor(status, title, detail) {
    super(detail ? `${title}: ${detail}` : title);
    this.status = status;
  }
}

async function api(path, { method = "GET", body, signal, token = sessionStorage.getItem(TOKEN) } = {}) {
  // Headers allow no other characters. With Cloudflare Access there is no token.
  if (token !== null && !/^[\x21-\x7e]+$/.test(token)) throw new Problem(401, "Missing or invalid token", "a token contains only ASCII characters, without spaces");
  const headers = { ...(token !== null && { Authorization: `Bearer ${token}` }), ...(body && { "Content-Type": "application/json" }) };
  let response;
  let text;
  try {
    response = await fetch(API + path, { method, headers, body: body && JSON.stringify(body), signal, cache: "no-store" });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "Hookmill does not respond", error.message);
  }
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    // 204 has no body, and a proxy may respond in its own format.
  }
  if (response.ok) return answer;
  throw new Problem(response.status, answer?.title ?? `HTTP ${response.status}`, answer?.detail ?? response.statusText);
}

// An address with the parameters that have a value.
function address(path, parameters) {
  const said = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return said.length ? `${path}?${new URLSearchParams(said)}` : path;
}

const path = (...parts) => `/${parts.map(encodeURIComponent).join("/")}`;
const link = (...parts) => `#${path(...parts)}`;

// ---- Elements

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value !== undefined && value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  return made;
}

function drawing(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Changes the content of a container, and moves the focus to the element that replaces the focused one.
function keepFocus(container, change) {
  const focused = container.contains(document.activeElement) ? document.activeElement : undefined;
  change();
  if (!focused || container.contains(focused)) return;
  const all = [...container.querySelectorAll("a[href], button, summary")];
  const same = all.find((one) => one.textContent === focused.textContent && one.getAttribute("href") === focused.getAttribute("href"));
  (same ?? all[0] ?? main.querySelector("h1")).focus();
}

// Replaces the children of a container.
function replace(container, ...children) {
  keepFocus(container, () => container.replaceChildren(...children.flat(Infinity).filter(Boolean)));
}

// Like `replace`, but keeps unchanged children, and with them the selection and the reading position.
function refresh(container, ...children) {
  if (container.childElementCount !== children.length) return replace(container, ...children);
  keepFocus(container, () => children.forEach((child, place) => container.children[place].isEqualNode(child) || container.children[place].replaceWith(child)));
}

// Announces a text to screen readers.
function announce(text) {
  announcer.textContent = text;
}

// Foreign text, isolated so that its direction does not affect its neighbors. Only the style sheet shortens it, so copying, search and
// screen readers use the whole text.
const word = (text) => element("bdi", { class: "word", title: text }, text);

function copyable(text) {
  const whole = element("code", {}, element("bdi", {}, text));
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      announce("Copied");
    } catch {
      // Without TLS there is no clipboard.
      getSelection().selectAllChildren(whole);
      announce("Selected; copy it with the keyboard");
    }
  };
  return element("span", { class: "copyable" }, whole, element("button", { type: "button", class: "small", "aria-label": `Copy ${text}`, click: copy }, "Copy"));
}

const number = (value) => new Intl.NumberFormat().format(value);
const count = (value, one, many = `${one}s`) => `${number(value)} ${value === 1 ? one : many}`;

function duration(millis) {
  if (millis < 1000) return `${Math.max(0, Math.round(millis))} ms`;
  const units = [["d", 86_400_000], ["h", 3_600_000], ["min", 60_000], ["s", 1000]];
  const [name, unit] = units.find(([, unit]) => millis >= unit);
  const value = millis / unit;
  return `${value < 10 ? value.toFixed(1).replace(/\.0$/, "") : Math.round(value)} ${name}`;
}

function time(millis, shown = (date) => date.toLocaleString()) {
  if (millis === undefined || millis === null) return "–";
  const date = new Date(millis);
  if (Number.isNaN(date.getTime())) return String(millis);
  return element("time", { datetime: date.toISOString(), title: date.toISOString() }, shown(date));
}

const clock = (millis) => new Date(millis).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

const badge = (state) => element("span", { class: "badge", "data-state": state }, state.replaceAll("_", " "));

// Names and values; names without a value are omitted.
function facts(entries) {
  const said = entries.filter(([, value]) => value !== undefined && value !== null && value !== "" && value !== false);
  return element("dl", { class: "facts" }, said.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

// Roles are explicit, because the narrow layout changes `display`, and some browsers then no longer treat tables as tables.
function table(caption, all, items = []) {
  const columns = all.filter(Boolean);
  const body = element("tbody", { role: "rowgroup" });
  const row = (item) => {
    const cells = columns.map(([name, cell]) => element("td", { role: "cell", "data-label": name }, element("div", {}, cell(item) || "–")));
    return element("tr", { role: "row" }, cells);
  };
  const heads = columns.map(([name]) => element("th", { role: "columnheader", scope: "col" }, name));
  const head = element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, heads));
  const whole = element("table", { role: "table" }, element("caption", {}, caption), head, body);
  body.append(...items.map(row));
  return { whole, add: (more) => body.append(...more.map(row)), set: (all) => replace(body, all.map(row)) };
}

function field({ name, label, options, hint, id = `field-${name}`, ...attributes }, value) {
  const described = hint && `${id}-hint`;
  const control = options
    ? element("select", { id, name }, ["", ...options].map((option) => element("option", { value: option, selected: option === value }, option.replaceAll("_", " ") || "any")))
    : element("input", { id, name, value, "aria-describedby": described, autocomplete: "off", spellcheck: "false", ...attributes });
  return element("div", { class: "field" }, element("label", { for: id }, label), control, hint && element("small", { id: described }, hint));
}

// A form whose values become the address, so that a search can be bookmarked.
function search(base, query, fields) {
  const submit = (event) => {
    event.preventDefault();
    go(address(base, Object.fromEntries(new FormData(event.target))));
  };
  const controls = fields.map((one) => field(one, query.get(one.name) ?? ""));
  return element("form", { class: "search", role: "search", submit }, controls, element("div", { class: "actions" }, element("button", { type: "submit" }, "Search"), element("a", { href: base }, "Clear")));
}

// ---- Changes

// Controls for changes; for a token with the role `read`, a note.
function changes(...controls) {
  if (actor?.role === "operate") return controls.flat();
  return element("p", { class: "quiet" }, "This token can only view. Changes need a token with the role ", element("code", {}, "operate"), ".");
}

// The same without a note, on a page that has one.
const change = (control) => actor?.role === "operate" && control;

// Asks for the reason and other fields, and makes the change. The dialog shows an error of the API, and stays open for another
// attempt.
function ask({ title, text, action, fields = [] }, act) {
  // A dialog that was just closed is removed later, and its labels would have the same ids.
  for (const old of document.querySelectorAll("dialog")) old.remove();
  const alert = element("p", { class: "alert", role: "alert", hidden: true });
  const submit = element("button", { type: "submit", class: "primary" }, action);
  const dialog = element("dialog", { "aria-labelledby": "dialog-title" });
  const form = element(
    "form",
    {
      submit: async (event) => {
        event.preventDefault();
        submit.disabled = true;
        try {
          const answer = await act(Object.fromEntries(new FormData(form)));
          dialog.close();
          return answer;
        } catch (error) {
          if (error.status === 401) return logIn(error);
          alert.textContent = error.message;
          alert.hidden = false;
        } finally {
          submit.disabled = false;
        }
      },
    },
    element("h2", { id: "dialog-title" }, title),
    text && element("p", {}, text),
    alert,
    fields.map((one) => field(one, one.value)),
    field({ name: "why", label: "Reason", hint: "For the audit, with your token's name.", required: true, maxlength: 500 }),
    element("div", { class: "actions" }, submit, element("button", { type: "button", click: () => dialog.close() }, "Back")),
  );
  dialog.append(form);
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  form.querySelector("input").focus();
}

// ---- Pages

class Page {
  #controller = new AbortController();
  // Aborted when the page ends.
  signal = this.#controller.signal;

  begin(title) {
    document.title = `${title} – Hookmill`;
    this.heading = element("h1", { tabindex: "-1" }, title);
    this.alert = element("p", { class: "alert", role: "alert", hidden: true });
    this.content = element("div", {}, element("p", {}, "Loading…"));
    main.replaceChildren(this.heading, this.alert, this.content);
    this.heading.focus();
  }

  get(path) {
    return api(path, { signal: this.signal });
  }

  fill(...children) {
    if (!this.signal.aborted) replace(this.content, ...children);
  }

  // Shows an error, or hides it.
  tell(error) {
    if (this.signal.aborted || error?.name === "AbortError") return;
    if (error?.status === 401) return logIn(error);
    const text = error?.message ?? "";
    // Screen readers do not repeat the same text.
    if (this.alert.textContent !== text) this.alert.textContent = text;
    this.alert.hidden = !text;
    if (error && this.content.textContent === "Loading…") this.content.replaceChildren();
  }

  async try(act) {
    try {
      await act();
      this.tell();
    } catch (error) {
      this.tell(error);
    }
  }

  // Refreshes at this interval in seconds, while the page is visible and no dialog is open.
  every(seconds, update) {
    let timer;
    let busy = false;
    const tick = async () => {
      clearTimeout(timer);
      if (busy || document.hidden || this.signal.aborted) return;
      busy = true;
      if (!document.querySelector("dialog")) await this.try(update);
      busy = false;
      if (!this.signal.aborted) timer = setTimeout(tick, seconds() * 1000);
    };
    document.addEventListener("visibilitychange", tick, { signal: this.signal });
    this.signal.addEventListener("abort", () => clearTimeout(timer));
    timer = setTimeout(tick, seconds() * 1000);
  }

  leave() {
    this.#controller.abort();
  }
}

// A list of the API with its pages. After `refresh` seconds, the displayed pages are fetched again.
async function list(page, { of, parameters = {}, caption, columns, nothing, refresh }) {
  const shown = table(caption, columns);
  const summary = element("p", { tabindex: "-1" });
  const more = element("button", { type: "button", hidden: true }, "More");
  let items = [];
  let next;
  const tell = () => {
    summary.textContent = items.length ? `${number(items.length)} shown${next ? ", and there are more" : ""}.` : nothing;
    shown.whole.hidden = !items.length;
    more.hidden = !next;
  };
  const load = async () => {
    const answer = await page.get(address(of, { ...parameters, cursor: next }));
    items.push(...answer.items);
    next = answer.next;
    shown.add(answer.items);
    tell();
    announce(`${caption}: ${summary.textContent}`);
  };
  more.addEventListener("click", () =>
    page.try(async () => {
      await load();
      if (more.hidden) summary.focus();
    }),
  );
  if (refresh) {
    page.every(
      () => refresh,
      async () => {
        const answer = await page.get(address(of, { ...parameters, limit: Math.min(500, Math.max(50, items.length)) }));
        if (JSON.stringify(answer.items) === JSON.stringify(items)) return;
        ({ items, next } = answer);
        shown.set(items);
        tell();
      },
    );
  }
  await load();
  return element("section", { "aria-label": caption }, summary, shown.whole, more);
}

// ---- Overview

const WINDOWS = [[60, "Hour"], [360, "6 hours"], [1440, "Day"]];

// Links to a page in other windows of time.
const windows = (base, name, all, shown) => element("nav", { "aria-label": "Time", class: "windows" }, element("ul", {}, all.map(([of, label]) => element("li", {}, element("a", { href: address(base, { [name]: of }), "aria-current": of === shown && "true" }, label)))));

// Bars with a text alternative, and a table with the exact values.
function chart(title, unit) {
  const graph = drawing("svg", { role: "img", viewBox: "0 0 600 120", preserveAspectRatio: "none" });
  const top = element("span", {});
  const ends = element("div", { class: "ends", "aria-hidden": "true" });
  const data = element("div", {});
  const whole = element("figure", {}, element("figcaption", {}, title, " ", top), graph, ends, element("details", {}, element("summary", {}, "As a table"), data));
  const update = (bars, shown) => {
    const most = Math.max(0, ...bars.map((bar) => bar.value ?? 0));
    const width = 600 / bars.length;
    const highest = bars.find((bar) => bar.value === most);
    const text = most > 0 ? `at most ${shown(most)}${unit}, at ${clock(highest.at)}` : "nothing in this time";
    top.textContent = text;
    graph.setAttribute("aria-label", `${title}, from ${clock(bars[0].at)} until now: ${text}`);
    const rectangles = bars.map((bar, place) => {
      const height = most > 0 ? ((bar.value ?? 0) / most) * 116 : 0;
      const said = drawing("title", {}, `${clock(bar.at)}: ${bar.value === undefined ? "none" : shown(bar.value) + unit}`);
      return drawing("rect", { x: place * width + width * 0.1, y: 120 - height, width: width * 0.8, height }, said);
    });
    graph.replaceChildren(drawing("path", { d: "M0 119.5H600", class: "axis" }), ...rectangles);
    ends.replaceChildren(element("span", {}, clock(bars[0].at)), element("span", {}, "now"));
    const known = bars.filter((bar) => bar.value).reverse();
    refresh(data, known.length ? table(title, [["From", (bar) => time(bar.at, (date) => clock(date))], ["Value", (bar) => shown(bar.value) + unit]], known).whole : element("p", {}, "Nothing in this time."));
  };
  return { whole, update };
}

// Applied events in at most 72 spans of equal length.
function spans(stats, minutes) {
  const length = Math.ceil(minutes / 72);
  const last = Math.floor(stats.at / 60_000);
  const bars = Array.from({ length: Math.ceil(minutes / length) }, (_, place, from = last - minutes + 1 + place * length) => ({ at: from * 60_000, events: 0, lag: undefined }));
  for (const { at, events, lag } of stats.activity) {
    const bar = bars[Math.floor((at / 60_000 - (last - minutes + 1)) / length)];
    if (!bar) continue;
    bar.events += events;
    bar.lag = Math.max(bar.lag ?? 0, lag);
  }
  return { length, bars };
}

async function overview(page, _parts, query) {
  page.begin("Overview");
  const minutes = WINDOWS.find(([minutes]) => String(minutes) === query.get("minutes"))?.[0] ?? 60;
  const tiles = element("dl", { class: "tiles" });
  const rate = chart("Events per minute", "");
  const lag = chart("Longest lag", "");
  const tables = element("div", { class: "columns" });
  const at = element("p", { class: "quiet" });
  const tally = (title, names, items, row, nothing) =>
    element("section", { class: "card" }, element("h2", {}, title), items.length ? table(title, names.map((name, place) => [name, (item) => row(item)[place]]), items).whole : element("p", {}, nothing));
  const update = async () => {
    const stats = await page.get(address("/stats", { minutes }));
    const recent = stats.activity.filter((one) => one.at > stats.at - 5 * 60_000);
    const events = recent.reduce((sum, one) => sum + one.events, 0);
    const { dead_letters: dead, retrying } = stats;
    const queue = stats.queues.find((one) => one.queue === "events");
    // Counts of rows have a limit, so that counting is cheap.
    const counted = (count) => (count < stats.counted_to ? number(count) : `${number(stats.counted_to)}+`);
    const tile = (name, value, note, of) => element("div", { class: "tile", "data-state": of }, element("dt", {}, name), element("dd", {}, element("span", { class: "figure" }, value), note && element("span", { class: "note" }, note)));
    refresh(
      tiles,
      tile("Events per minute", number(Math.round((events / 5) * 10) / 10), "over the last 5 minutes"),
      tile("Lag", recent.length ? duration(Math.max(...recent.map((one) => one.lag))) : "–", recent.length ? "the longest in 5 minutes" : "no events in 5 minutes"),
      tile("On the queue", queue ? number(queue.messages) : "–", queue ? queue.oldest && ["the oldest since ", time(queue.oldest)] : "unknown"),
      tile("Retrying", element("a", { href: address("#/events", { state: "retrying" }) }, counted(retrying.events)), retrying.next_attempt_at && ["next attempt ", time(retrying.next_attempt_at), ": ", element("bdi", {}, retrying.error)], retrying.events > 0 && "retrying"),
      tile("Dead letters", element("a", { href: "#/dead-letters" }, counted(dead.dead)), dead.replaying > 0 && `${counted(dead.replaying)} replaying`, dead.dead > 0 && "dead"),
      tile("Oldest dead letter", dead.oldest ? duration(stats.at - dead.oldest) : "–", dead.oldest && time(dead.oldest), dead.oldest && "dead"),
      tile("Active replays", element("a", { href: "#/replays" }, number(stats.replays))),
    );
    const { length, bars } = spans(stats, minutes);
    rate.update(bars.map((bar) => ({ at: bar.at, value: bar.events / length })), (value) => number(Math.round(value * 10) / 10));
    lag.update(bars.map((bar) => ({ at: bar.at, value: bar.lag })), duration);
    refresh(
      tables,
      tally("Dead letters by reason", ["Reason", "Letters"], dead.reasons, ({ reason, count }) => [element("a", { href: address("#/dead-letters", { reason }) }, reason), counted(count)], "None."),
      tally("Outbox", ["Channel", "State", "Count"], stats.outbox, ({ channel, state, count }) => [channel, element("a", { href: address("#/outbox", { channel, state }) }, badge(state)), counted(count)], "Nothing waits, and nothing failed."),
      tally("Rejections in this window", ["Source", "Reason", "Requests"], stats.rejections, ({ source, reason, count }) => [source || "none", element("a", { href: address("#/rejections", { source, reason }) }, reason), number(count)], "None."),
      ...(stats.sweeps.length ? [tally("Events that were never delivered", ["Source", "Found", "Complete up to"], stats.sweeps, ({ source, found, found_last: last, swept_to: to, error }) => [source, `${number(found)}${last > 0 ? `, ${number(last)} of them last` : ""}`, error ? element("bdi", {}, error) : time(to)], "")] : []),
      tally("Sent through providers (UTC)", ["Provider", "Period", "Sent", "Requests"], stats.usage, ({ provider, period, sent, requests }) => [provider, period, number(sent), number(requests)], "Nothing today."),
    );
    at.replaceChildren("As of ", time(stats.at, (date) => date.toLocaleTimeString()), ".");
  };
  await update();
  page.fill(
    windows("#/", "minutes", WINDOWS, minutes),
    element("section", { "aria-label": "At a glance" }, tiles),
    element("section", { "aria-label": "Over time", class: "columns" }, rate.whole, lag.whole),
    tables,
    at,
  );
  page.every(() => 5, update);
}

// ---- Events


async function events(page, _parts, query) {
  page.begin("Events");
  const form = search("#/events", query, [
    { name: "source", label: "Source" },
    { name: "type", label: "Type", hint: "* matches any text" },
    { name: "id", label: "Event id" },
    { name: "state", label: "State", options: EVENT_STATES },
  ]);
  const found = await list(page, {
    of: "/events",
    parameters: Object.fromEntries(query),
    caption: "Events",
    nothing: "No events match. Queued events are not listed.",
    columns: [
      ["Settled or failed", (event) => time(event.settled_at)],
      ["Source", (event) => word(event.source)],
      ["Type", (event) => word(event.type)],
      ["Event", (event) => element("a", { href: link("events", event.source, event.id) }, word(event.id))],
      ["State", (event) => [badge(event.state), event.generation > 0 && ` generation ${event.generation}`, event.next_attempt_at && element("div", {}, "next attempt ", time(event.next_attempt_at), ": ", element("bdi", {}, event.error))]],
      ["Deliveries", (event) => number(event.attempts)],
    ],
  });
  page.fill(form, found);
}

const STEPS = {
  received: "Received",
  applied: "Applied",
  recorded: "Recorded; no rule matches it",
  "attempt failed": "Attempt failed",
  failed: "Failed",
  "failed again": "Failed again",
  replayed: "Sent to the queue again",
  outbox: "Written to the outbox",
  sealed: "In a batch that is being sent",
  sent: "Sent",
  refused: "Refused by the provider",
  suppressed: "Not sent: the address is suppressed",
  uncertain: "Delivery uncertain",
  outcome: "Reported by the provider",
  "letter.discard": "Discarded",
  "letter.replay": "Replay requested",
};

// The rows that an event's rules name: each a table, and the columns of its key.
function named(rows) {
  const key = (columns) => Object.entries(columns).map(([column, value]) => `${column} ${value}`).join(", ");
  return element("ul", { class: "plain" }, rows.map(([table, columns]) => element("li", {}, element("code", {}, table), " ", element("bdi", {}, key(columns)))));
}

// Details, with links to the objects that they name.
function details(detail) {
  const value = (name, said) => {
    if (name === "rows" && Array.isArray(said)) return named(said);
    if (name === "letter") return element("a", { href: link("dead-letters", said) }, word(said));
    if (name === "replay") return element("a", { href: link("replays", said) }, word(said));
    if (name.endsWith("_at")) return time(said);
    return element("bdi", {}, typeof said === "object" ? JSON.stringify(said) : String(said));
  };
  // Generation 0 is the original event, which is not mentioned.
  const said = Object.entries(detail ?? {}).filter(([name, one]) => one !== null && one !== "" && !(name === "generation" && one === 0));
  return facts(said.map(([name, one]) => [name.replaceAll("_", " "), value(name, one)]));
}

async function timeline(page, [, source, id]) {
  page.begin("Event");
  const story = await page.get(path("events", source, id));
  const steps = story.steps.map((step) => element("li", {}, element("h3", {}, STEPS[step.what] ?? step.what), time(step.at), details(step.detail)));
  page.fill(
    facts([["Source", element("bdi", {}, story.source)], ["Event id", copyable(story.id)], ...(story.next_attempt_at ? [["State", [badge("retrying"), " next attempt ", time(story.next_attempt_at)]]] : [])]),
    element("section", {}, element("h2", {}, "Timeline"), element("ol", { class: "timeline" }, steps)),
    element("section", {}, element("h2", {}, "Body"), bodyOfEvent(page, story)),
  );
}

// A body may be long, so it is fetched on request only.
function bodyOfEvent(page, { source, id }) {
  const place = element("div", {});
  const show = () =>
    page.try(async () => {
      try {
        const shown = await page.get(path("events", source, id, "body"));
        place.replaceChildren(...bodyOf(shown).filter(Boolean));
        announce("The body is shown");
      } catch (error) {
        if (error.status !== 404) throw error;
        place.replaceChildren(element("p", { tabindex: "-1" }, error.message));
        announce(error.message);
      }
      place.lastElementChild.focus();
    });
  place.append(element("button", { type: "button", click: show }, "Show the body"));
  return place;
}

// ---- Dead letters


// The parts of plans that the API does not store.
const plans = new Map();

// Plans a replay or a reprocessing, which sends nothing yet, and opens its page.
async function plan(page, selection, to = "/replays") {
  await page.try(async () => {
    const planned = await api(to, { method: "POST", body: selection });
    plans.set(planned.id, planned);
    go(link("replays", planned.id));
  });
}

async function deadLetters(page, _parts, query) {
  page.begin("Dead letters");
  const form = search("#/dead-letters", query, [
    { name: "source", label: "Source" },
    { name: "type", label: "Type", hint: "* matches any text" },
    { name: "reason", label: "Reason", options: LETTER_REASONS },
    { name: "event_id", label: "Event id" },
    { name: "fingerprint", label: "Fingerprint", hint: "Identifies the kind of error" },
    { name: "state", label: "State", options: LETTER_STATES.filter((state) => state !== "dead"), hint: "Default: dead" },
  ]);
  // Without a choice, the state is `dead`, as in the API.
  form.elements.state.options[0].textContent = "dead";
  const { state, ...filter } = Object.fromEntries(query);
  const dead = !state || state === "dead";
  const select = (more) => {
    const selection = { ...filter, ...more };
    return Object.keys(selection).length ? selection : { all: true };
  };
  const groups = await page.get(address("/dead-letters/groups", Object.fromEntries(query)));
  const group = (one) =>
    element(
      "li",
      { class: "card" },
      element("h3", {}, count(one.count, "letter"), ": ", element("bdi", {}, one.error)),
      facts([
        ["Reason", one.reason],
        ["Sources", element("bdi", {}, one.sources.join(", "))],
        ["Types", element("bdi", {}, one.types.join(", "))],
        ["First failed", time(one.first_failed_at)],
        ["Last failed", time(one.last_failed_at)],
        ["Fingerprint", element("code", {}, one.fingerprint)],
      ]),
      element(
        "div",
        { class: "actions" },
        element("a", { href: address("#/dead-letters", { ...Object.fromEntries(query), fingerprint: one.fingerprint }), "aria-label": `Letters with the error ${one.error}` }, "Letters"),
        dead && change(element("button", { type: "button", "aria-label": `Plan a replay of letters with the error ${one.error}`, click: () => plan(page, select({ fingerprint: one.fingerprint })) }, "Plan a replay")),
      ),
    );
  const found = await list(page, {
    of: "/dead-letters",
    parameters: Object.fromEntries(query),
    caption: "Letters",
    nothing: "No dead letters match.",
    columns: [
      ["Last failed", (letter) => time(letter.last_failed_at)],
      ["Source", (letter) => letter.source && word(letter.source)],
      ["Type", (letter) => letter.type && word(letter.type)],
      ["Letter", (letter) => element("a", { href: link("dead-letters", letter.id) }, word(letter.event_id ?? letter.id))],
      ["State", (letter) => badge(letter.state)],
      ["Reason", (letter) => letter.reason],
      ["Error", (letter) => element("bdi", {}, letter.error)],
    ],
  });
  page.fill(
    form,
    element(
      "section",
      {},
      element("h2", {}, "By error"),
      groups.length ? element("ul", { class: "cards" }, groups.map(group)) : element("p", {}, "No dead letters match."),
      dead && groups.length > 0 && element("div", { class: "actions" }, changes(element("button", { type: "button", click: () => plan(page, select({})) }, Object.keys(filter).length ? "Plan a replay of all matching letters" : "Plan a replay of every dead letter"))),
    ),
    element("section", {}, element("h2", {}, "One by one"), found),
  );
}

// Indents JSON as text. Parsing and serializing it would change numbers that are too long for JavaScript, and repeated names.
function indented(text) {
  try {
    JSON.parse(text);
  } catch {
    return undefined;
  }
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g) ?? [];
  const parts = [];
  let depth = 0;
  tokens.forEach((token, place) => {
    const closes = token === "}" || token === "]";
    const opened = ["{", "["].includes(tokens[place - 1]);
    if (closes) depth--;
    if (closes ? !opened : opened || tokens[place - 1] === ",") parts.push("\n", "  ".repeat(depth));
    parts.push(token === ":" ? ": " : token);
    if (token === "{" || token === "[") depth++;
  });
  return parts.join("");
}

function bodyOf(letter) {
  const forms = {
    base64: "The body is not text; this is its base64.",
    unreadable: "The message is unreadable; this is all of it.",
  };
  if (letter.body_form === "redacted") return [element("p", { tabindex: "-1" }, "The body needs redaction and is not JSON, or its source is no longer configured, so it is hidden.")];
  if (!letter.body) return [element("p", { tabindex: "-1" }, "The body is no longer stored.")];
  const tidy = letter.body_form === "text" ? indented(letter.body) : undefined;
  const shown = element("pre", { tabindex: "0", role: "region", "aria-label": "Body" }, tidy ?? letter.body);
  const box = element("input", { type: "checkbox", id: "indent", checked: true, change: () => (shown.textContent = box.checked ? tidy : letter.body) });
  return [
    forms[letter.body_form] && element("p", {}, forms[letter.body_form]),
    tidy !== undefined && element("p", {}, box, " ", element("label", { for: "indent" }, "Indented")),
    shown,
  ];
}

async function deadLetter(page, [, id]) {
  page.begin("Dead letter");
  const update = async () => {
    const letter = await page.get(path("dead-letters", id));
    const name = letter.event_id ?? letter.id.slice(0, 12);
    const replay = () =>
      ask({ title: "Replay this letter", text: "Its event goes through the whole path again.", action: "Replay" }, async ({ why }) => {
        const started = await api(`${path("dead-letters", letter.id)}/replay`, { method: "POST", body: { reason: why } });
        go(link("replays", started.id));
      });
    const discard = () =>
      ask({ title: "Discard this letter", text: `${name} will no longer count as dead. You can still view it.`, action: "Discard" }, async ({ why }) => {
        await api(`${path("dead-letters", letter.id)}/discard`, { method: "POST", body: { reason: why } });
        announce("Discarded");
        await page.try(update);
      });
    page.fill(
      element("p", {}, badge(letter.state), " ", element("bdi", {}, letter.error)),
      letter.state === "dead" && element("div", { class: "actions" }, changes(element("button", { type: "button", class: "primary", click: replay }, "Replay…"), element("button", { type: "button", click: discard }, "Discard…"))),
      facts([
        ["Letter", copyable(letter.id)],
        ["Source", letter.source && element("bdi", {}, letter.source)],
        ["Event id", letter.event_id && copyable(letter.event_id)],
        ["Type", letter.type && element("bdi", {}, letter.type)],
        ["Reason", letter.reason],
        ["Fingerprint", element("a", { href: address("#/dead-letters", { fingerprint: letter.fingerprint }) }, letter.fingerprint)],
        ["Received", letter.received_at && time(letter.received_at)],
        ["First failed", time(letter.first_failed_at)],
        ["Last failed", time(letter.last_failed_at)],
        ["Deliveries", number(letter.attempts)],
        ["Replayed", letter.replays > 0 && count(letter.replays, "time")],
        ["Last replay", letter.replay && element("a", { href: link("replays", letter.replay) }, letter.replay)],
        ["History", letter.source && letter.event_id && element("a", { href: link("events", letter.source, letter.event_id) }, "Timeline of the event")],
      ]),
      element("section", {}, element("h2", {}, "Body"), bodyOf(letter)),
    );
  };
  await update();
}

// ---- Replays

function progress(replay) {
  const bar = element("progress", { "aria-label": `Progress of replay ${replay.id}` });
  drawProgress(bar, replay);
  return bar;
}

// Providers do not tell how many objects they have. Without a value, the bar only says that the import is under way.
function drawProgress(bar, { total, sent, state }) {
  bar.max = Math.max(1, total ?? 0, sent);
  if (total !== null || state !== "running") bar.value = sent;
  else bar.removeAttribute("value");
  bar.textContent = ofTotal({ sent, total });
}

const ofTotal = ({ sent, total }) => (total === null ? number(sent) : `${number(sent)} of ${number(total)}`);
const progressText = (replay) => `${ofTotal(replay)} sent, ${number(replay.applied)} applied, ${number(replay.failed)} failed${replay.kind === "replay" ? " again" : ""}`;

const kind = (replay) => ({ replay: "Dead letters", reprocess: `Reprocessing ${number(replay.generation)}`, import: `Import ${number(replay.generation)}`, reconcile: `Reconciliation ${number(replay.generation)}` })[replay.kind];

// The filter in words.
function selected({ filter, kind }) {
  const value = (name, said) => {
    if (name === "all") return kind === "reprocess" ? "every event whose message is kept" : "every dead letter";
    if (name === "id") return element("a", { href: link("dead-letters", said) }, word(said));
    return /_(from|before)$/.test(name) ? time(said) : word(Array.isArray(said) ? said.join(", ") : said);
  };
  const said = Object.entries(filter).map(([name, one]) => [name !== "all" && `${name.replaceAll("_", " ")} `, value(name, one)]);
  return element("span", {}, said.map((one, place) => [place > 0 && ", ", one]));
}

// A form that plans a replay or a reprocessing. `to` is the path of the API, and `all` the label for everything.
function planner(page, { title, text, to, all, fields }) {
  const submit = (event) => {
    event.preventDefault();
    const said = Object.fromEntries(new FormData(event.target));
    const selection = said.all ? { all: true } : {};
    for (const { name, type, list, flag } of fields) {
      if (!said[name]) continue;
      if (flag) selection[name] = true;
      else if (type === "number") selection[name] = Number(said[name]);
      else if (type === "datetime-local") selection[name] = new Date(said[name]).getTime();
      else selection[name] = list ? said[name].split(",").map((one) => one.trim()).filter(Boolean) : said[name];
    }
    plan(page, selection, to);
  };
  const id = (name) => `field-${to.slice(1)}-${name}`;
  const every = all && element("div", { class: "field" }, element("span", {}, element("input", { type: "checkbox", id: id("all"), name: "all" }), " ", element("label", { for: id("all") }, all)));
  const controls = fields.map(({ list: _, flag: __, ...one }) => field({ ...one, id: id(one.name) }, ""));
  return element(
    "section",
    {},
    element("h2", {}, title),
    element("p", {}, text),
    element("form", { class: "search", submit, "aria-label": title }, controls, every, element("div", { class: "actions" }, element("button", { type: "submit" }, "Plan"))),
  );
}

async function replays(page) {
  page.begin("Replays");
  const found = await list(page, {
    of: "/replays",
    caption: "Replays",
    nothing: "No replays yet.",
    refresh: 5,
    columns: [
      ["Planned", (replay) => time(replay.planned_at)],
      ["Replay", (replay) => element("a", { href: link("replays", replay.id) }, word(replay.id))],
      ["State", (replay) => badge(replay.state)],
      ["Progress", (replay) => element("div", {}, progress(replay), element("div", {}, progressText(replay)))],
      ["Of", kind],
      ["Which", selected],
      ["By", (replay) => replay.run_by ?? replay.planned_by],
      ["Reason", (replay) => element("bdi", {}, replay.reason || "–")],
    ],
  });
  const letters = planner(page, {
    title: "Plan a replay",
    text: "Selects dead letters. Nothing is sent until you run the plan.",
    to: "/replays",
    all: "Every dead letter",
    fields: [
      { name: "source", label: "Source" },
      { name: "type", label: "Type", hint: "* matches any text" },
      { name: "reason", label: "Reason", options: LETTER_REASONS },
      { name: "event_id", label: "Event id" },
      { name: "fingerprint", label: "Fingerprint" },
      { name: "failed_from", label: "Last failed from", type: "datetime-local" },
      { name: "failed_before", label: "Last failed before", type: "datetime-local" },
    ],
  });
  const events = planner(page, {
    title: "Plan a reprocessing",
    text: "Selects applied events whose messages are kept, for instance after a rule has changed. By default, the rules that write rows by version run. Counters and rules that send run only if you name them, and then no others run. Nothing is sent until you run the plan.",
    to: "/reprocess",
    all: "Every event",
    fields: [
      { name: "source", label: "Source" },
      { name: "type", label: "Type", hint: "* matches any text" },
      { name: "event_id", label: "Event id" },
      { name: "applied_from", label: "Applied from", type: "datetime-local" },
      { name: "applied_before", label: "Applied before", type: "datetime-local" },
      { name: "rules", label: "Rules", list: true, hint: "Separated by commas" },
    ],
  });
  const objects = planner(page, {
    title: "Plan an import",
    text: "Loads the objects that a provider's API has, for instance those from before its webhooks. Only rules that keep rows run, and a newer event stays. Nothing is requested until you run the plan.",
    to: "/imports",
    fields: [
      { name: "source", label: "Source" },
      { name: "only", label: "Only these lists", list: true, hint: "Separated by commas" },
      { name: "account", label: "Connected account" },
    ],
  });
  const differences = planner(page, {
    title: "Plan a reconciliation",
    text: "Compares the objects that a provider's API has with the tables. With repair, the objects that differ go through the rules. Nothing is requested until you run the plan.",
    to: "/reconciliations",
    fields: [
      { name: "source", label: "Source" },
      { name: "table", label: "Only this table" },
      { name: "account", label: "Connected account" },
      { name: "sample", label: "First objects of each list", type: "number", min: 1 },
      { name: "repair", label: "Repair", options: ["yes"], flag: true },
    ],
  });
  page.fill(changes(letters, events, objects, differences), element("section", {}, element("h2", {}, "All replays"), found));
}

const TURNS = {
  run: { title: "Run this replay", action: "Run", text: "Sends what the plan selects to the queue at this rate, and through the whole path." },
  pause: { title: "Pause this replay", action: "Pause", text: "It stops sending until it is resumed." },
  resume: { title: "Resume this replay", action: "Resume" },
  cancel: { title: "Cancel this replay", action: "Cancel the replay", text: "What was not sent stays as it is. A canceled replay cannot be resumed." },
};
const POSSIBLE = { planned: ["run", "cancel"], running: ["pause", "cancel"], paused: ["resume", "cancel"] };

async function replay(page, [, id]) {
  page.begin("Replay");
  const state = element("p", { tabindex: "-1" });
  const bar = element("div", {});
  const actions = element("div", { class: "actions" });
  const about = element("div", {});
  const report = element("div", {});
  const planned = plans.get(id);
  let last = {};
  // Screen readers announce each quarter, not each letter.
  const quarter = ({ sent, total }) => (total === null ? 0 : Math.floor((4 * sent) / Math.max(1, total)));
  const draw = (replay) => {
    state.replaceChildren(badge(replay.state), ` ${progressText(replay)}`);
    if (!bar.firstChild) bar.append(progress(replay));
    drawProgress(bar.firstChild, replay);
    if (last.state !== replay.state) {
      const button = (turn) => element("button", { type: "button", class: turn === "run" || turn === "resume" ? "primary" : undefined, click: () => act(turn) }, `${TURNS[turn].action}…`);
      const possible = (POSSIBLE[replay.state] ?? []).map(button);
      replace(actions, possible.length && changes(possible));
    }
    if (last.state && (last.state !== replay.state || quarter(last) !== quarter(replay))) announce(`Replay ${replay.state}: ${progressText(replay)}`);
    if (JSON.stringify(last) !== JSON.stringify(replay)) {
      replace(
        about,
        facts([
          ["Replay", copyable(replay.id)],
          ["Of", kind(replay)],
          ["Which", selected(replay)],
          ["Rate", replay.rate > 0 && `${number(replay.rate)} per second`],
          ["Reason", replay.reason && element("bdi", {}, replay.reason)],
          ["Planned", [time(replay.planned_at), ` by ${replay.planned_by}`]],
          ["Started", replay.started_at && [time(replay.started_at), ` by ${replay.run_by}`]],
          ["Ended", replay.ended_at && time(replay.ended_at)],
          ["Last error", replay.error && element("bdi", {}, replay.error)],
        ]),
      );
    }
    last = replay;
  };
  const update = async () => {
    const replay = await page.get(path("replays", id));
    const isNew = replay.report && !report.firstChild;
    draw(replay);
    if (isNew) report.replaceChildren(reportOf(replay.report, (await page.get(`${path("replays", id)}/drifts`)).items));
  };
  const act = (turn) => {
    const fields = turn === "run" ? [{ name: "rate", label: { replay: "Letters per second", reprocess: "Events per second", import: "Objects per second", reconcile: "Objects per second" }[last.kind], type: "number", min: 1, max: 10_000, value: 50, required: true }] : [];
    ask({ ...TURNS[turn], fields }, async ({ why, rate }) => {
      const body = { reason: why, ...(rate && { rate: Number(rate) }) };
      draw(await api(`${path("replays", id)}/${turn}`, { method: "POST", body }));
      page.tell();
    });
  };
  await update();
  page.fill(state, bar, actions, about, report, planned && element("section", {}, element("h2", {}, "The plan"), planOf[planned.kind](planned)));
  page.every(() => (last.state === "running" || last.applied + last.failed < last.sent ? 2 : 5), update);
}

const planOf = { replay: planOfLetters, reprocess: planOfEvents, import: planOfObjects, reconcile: () => [] };

// What a reconciliation has found. `drifts` are the first differences.
function reportOf({ objects, tables, unlisted, complete, withheld }, drifts) {
  const compared = Object.values(objects).reduce((sum, one) => sum + one, 0);
  const found = Object.entries(tables);
  const columns = ({ columns = {} }) => Object.entries(columns).map(([name, rows]) => `${name} ${number(rows)}`).join(", ");
  const rows = (what) => [what[0].toUpperCase() + what.slice(1), ([, of]) => number(of[what] ?? 0)];
  return element(
    "section",
    {},
    element("h2", {}, "What it found"),
    element("p", {}, `${count(compared, "object")} compared${complete ? "" : "; the reconciliation stopped after too many differences"}. ${found.length ? "" : "The tables are equal."}`),
    withheld && element("p", {}, "The repair deleted no rows: more rows lack an object than the provider lists. Check that the key belongs to this account and mode."),
    found.length > 0 && table("By table", [["Table", ([name]) => word(name)], ...["missing", "extra", "different", "deleted", "repaired", "unclear"].map(rows), ["Columns", ([, of]) => columns(of)]], found).whole,
    drifts.length > 0 && table("The first differences", [["Table", (one) => word(one.table)], ["Key", (one) => word(one.key.join(", "))], ["Kind", (one) => one.kind], ["Columns", (one) => one.columns.join(", ")], ["State", (one) => badge(one.state)]], drifts).whole,
    unlisted.length > 0 && element("p", {}, `Not compared, because no list contains their objects: ${unlisted.join(", ")}.`),
  );
}

function planOfObjects(planned) {
  return element("p", {}, "All objects of ", word(planned.filter.source), `: ${planned.lists.join(", ")}.`);
}

function planOfEvents(planned) {
  const types = table("By type", [["Source", ({ source }) => word(source)], ["Type", ({ type }) => word(type)], ["Events", ({ count }) => number(count)]], planned.types);
  return [
    element("p", {}, `${count(planned.total, "event")}. What a later event has written stays as it is.`),
    planned.first_applied_at && element("p", {}, "The first was applied at ", time(planned.first_applied_at), ", the last at ", time(planned.last_applied_at), "."),
    planned.types.length > 0 && types.whole,
  ];
}

function planOfLetters(planned) {
  const sample =
    planned.sample.length > 0 &&
    table(planned.sample.length < planned.total ? "Some of the letters" : "The letters", [
      ["Letter", (one) => element("a", { href: link("dead-letters", one.id) }, word(one.event_id ?? one.id))],
      ["Source", (one) => one.source && word(one.source)],
      ["Type", (one) => one.type && word(one.type)],
      ["Error", (one) => element("bdi", {}, one.error)],
    ], planned.sample).whole;
  return [
    element("p", {}, `${count(planned.total, "letter")}.`),
    planned.first_failed_at && element("p", {}, "They first failed at ", time(planned.first_failed_at), ", and last failed at ", time(planned.last_failed_at), "."),
    sample,
  ];
}

// ---- Outbox

const AGAIN = ["refused", "suppressed", "uncertain"];

function sendAgain(text, selection) {
  const doubt = selection.state === "uncertain" ? " It may arrive twice." : "";
  ask({ title: "Send again", text: text + doubt, action: "Send again" }, async ({ why }) => {
    const { count: again } = await api("/outbox/retry", { method: "POST", body: { ...selection, reason: why } });
    await show();
    announce(`${number(again)} will be sent again`);
  });
}

async function outbox(page, _parts, query) {
  page.begin("Outbox");
  const form = search("#/outbox", query, [
    { name: "state", label: "State", options: OUTBOX_STATES },
    { name: "channel", label: "Channel", options: ["email", "sms", "mixpanel", "posthog"] },
    { name: "rule", label: "Rule" },
    { name: "recipient", label: "Recipient" },
  ]);
  const { state, channel, rule, recipient } = Object.fromEntries(query);
  const found = await list(page, {
    of: "/outbox",
    parameters: Object.fromEntries(query),
    caption: "Emails, SMS and tracking",
    nothing: "No messages match.",
    columns: [
      ["Written", (one) => time(one.created_at)],
      ["Channel", (one) => one.channel],
      ["Rule", (one) => one.rule],
      ["Recipient", (one) => one.recipient && word(one.recipient)],
      ["State", (one) => element("div", {}, badge(one.state), [one.outcome && `reported: ${one.outcome}`, one.error, one.skipped_recipients && `skipped: ${one.skipped_recipients}`].filter(Boolean).map((text) => element("div", {}, element("bdi", {}, text))))],
      ["Event", (one) => element("a", { href: link("events", one.source, one.event_id) }, word(one.event_id))],
      change(["Again", (one) => AGAIN.includes(one.state) && element("button", { type: "button", class: "small", "aria-label": `Send again to ${one.recipient ?? one.id}`, click: () => sendAgain(`To ${one.recipient ?? one.id}.`, { state: one.state, id: one.id }) }, "Send…")]),
    ],
  });
  // The API accepts a state and a rule, but no other filter.
  const all = AGAIN.includes(state) && !channel && !recipient;
  const removed = (one) =>
    ask({ title: "Remove this suppression", text: `${one.address} is suppressed${one.group ? ` for the group ${one.group}` : ""}: ${one.reason}.`, action: "Remove the suppression" }, async ({ why }) => {
      await api(path("suppressions", one.address) + (one.group ? `?group=${encodeURIComponent(one.group)}` : ""), { method: "DELETE", body: { reason: why } });
      await show();
      announce(`${one.address} is no longer suppressed`);
    });
  const suppressed = await list(page, {
    of: "/suppressions",
    caption: "Suppressed addresses",
    nothing: "No suppressed addresses.",
    columns: [
      ["Since", (one) => time(one.created_at)],
      ["Address", (one) => word(one.address)],
      ["Emails", (one) => (one.group ? `group ${one.group}` : "all")],
      ["Reason", (one) => one.reason],
      ["Because of", (one) => element("a", { href: link("events", one.source, one.event_id) }, word(one.event_id))],
      change(["Again", (one) => element("button", { type: "button", class: "small", "aria-label": `Remove the suppression of ${one.address}${one.group ? ` for the group ${one.group}` : ""}`, click: () => removed(one) }, "Remove…")]),
    ],
  });
  page.fill(
    form,
    changes(all && element("div", { class: "actions" }, element("button", { type: "button", click: () => sendAgain(`All messages with the state ${state.replaceAll("_", " ")}${rule ? ` of the rule ${rule}` : ""}.`, { state, ...(rule && { rule }) }) }, "Send all of these again…"))),
    found,
    element("section", {}, element("h2", {}, "Suppressions"), suppressed),
  );
}

// ---- Rejections and audit

async function rejections(page, _parts, query) {
  page.begin("Rejections");
  const form = search("#/rejections", query, [{ name: "source", label: "Source" }, { name: "reason", label: "Reason" }]);
  const { rejections: tallies } = await page.get("/stats?minutes=1440");
  const found = await list(page, {
    of: "/rejections",
    parameters: Object.fromEntries(query),
    caption: "The last of each kind",
    nothing: "No rejected requests.",
    columns: [
      ["At", (one) => time(one.at)],
      ["Source", (one) => (one.source ? word(one.source) : "none")],
      ["Reason", (one) => one.reason],
      ["Found", (one) => element("bdi", {}, one.detail || "–")],
      ["From", (one) => word(one.remote)],
      ["Bytes", (one) => one.body_bytes !== null && number(one.body_bytes)],
    ],
  });
  const counted = table("Rejected requests of the last day", [
    ["Source", ({ source }) => source || "none"],
    ["Reason", ({ source, reason }) => element("a", { href: address("#/rejections", { source, reason }) }, reason)],
    ["Requests", ({ count }) => number(count)],
  ], tallies);
  page.fill(
    element("section", {}, element("h2", {}, "The last day"), tallies.length ? counted.whole : element("p", {}, "No rejected requests.")),
    element("section", {}, element("h2", {}, "Samples"), form, found),
  );
}

// ---- Counts

const PERIODS = [[1, "Today"], [7, "7 days"], [30, "30 days"]];

async function counts(page, _parts, query) {
  page.begin("Counts");
  const days = PERIODS.find(([days]) => String(days) === query.get("days"))?.[0] ?? 7;
  const { rules, versions } = await page.get(address("/counts", { days }));
  const written = table("Rows by rule", [
    ["Rule", ({ rule }) => word(rule)],
    ["Rows", ({ rows }) => number(rows)],
    ["Without a value", ({ absent }) => absent.length > 0 && absent.map(({ column, rows }) => element("div", {}, word(column), `: ${number(rows)}`))],
  ], rules);
  const seen = table("Events by API version", [
    ["Source", ({ source }) => word(source)],
    ["Version", ({ version }) => word(version)],
    ["Events", ({ events }) => number(events)],
    ["First", ({ first_at }) => time(first_at)],
    ["Last", ({ last_at }) => time(last_at)],
    ["Expected", ({ expected }) => (expected ? "yes" : badge("unexpected"))],
  ], versions);
  page.fill(
    windows("#/counts", "days", PERIODS, days),
    element("section", {}, element("h2", {}, "API versions"), versions.length ? seen.whole : element("p", {}, "No events with a version.")),
    element(
      "section",
      {},
      element("h2", {}, "Rules"),
      element("p", {}, "Rows without deletions. A row is without a value if its event has no member at any path of the column; ", element("code", {}, "null"), " is a value. The column ", element("code", {}, "each"), " is the list of the rule."),
      rules.length ? written.whole : element("p", {}, "No rows."),
    ),
  );
}

// The target of a change, as a link.
function target({ action, target }) {
  if (action.startsWith("letter.")) return element("a", { href: link("dead-letters", target) }, word(target));
  if (action.startsWith("replay.") || action.startsWith("reprocess.")) return element("a", { href: link("replays", target) }, word(target));
  return target ? word(target) : "–";
}

async function audit(page) {
  page.begin("Audit");
  page.fill(
    await list(page, {
      of: "/audit",
      caption: "Changes",
      nothing: "No changes yet.",
      columns: [
        ["At", (act) => time(act.at)],
        ["Who", (act) => act.actor],
        ["What", (act) => act.action],
        ["To", target],
        ["Reason", (act) => element("bdi", {}, act.reason || "–")],
        ["Detail", (act) => element("code", {}, JSON.stringify(act.detail))],
      ],
    }),
  );
}

// ---- Configuration

const EFFECTS = { row: "upserts a row", rows: "replaces the rows of a list", count: "counts", email: "sends an email", sms: "sends an SMS", track: "tracks an event", outcome: "records an outcome", suppress: "suppresses an address", lift: "lifts a suppression" };

async function configuration(page) {
  page.begin("Configuration");
  const { version, sha256, file, rules } = await page.get("/configuration");
  const listed = table("Rules", [
    ["Rule", ({ name }) => word(name)],
    ["On", ({ on }) => on.map((event) => element("div", {}, element("bdi", {}, event)))],
    ["Effect", ({ effect }) => EFFECTS[effect] ?? effect],
    ["Target", ({ target }) => target && element("code", {}, target)],
  ], rules);
  page.fill(
    facts([["Hookmill", version], ["SHA-256 of hookmill.toml", copyable(sha256)]]),
    element("section", {}, element("h2", {}, "Rules"), element("p", {}, "In order, including those of presets."), rules.length > 0 && listed.whole),
    element(
      "section",
      {},
      element("h2", {}, "hookmill.toml"),
      element("p", {}, "The loaded file as JSON, without its comments. It contains the names of secrets, not their values."),
      element("pre", { tabindex: "0", role: "region", "aria-label": "hookmill.toml" }, JSON.stringify(file, null, 2)),
    ),
  );
}

// ---- Navigation

const SECTIONS = [["", "Overview"], ["events", "Events"], ["dead-letters", "Dead letters"], ["replays", "Replays"], ["outbox", "Outbox"], ["rejections", "Rejections"], ["counts", "Counts"], ["audit", "Audit"], ["configuration", "Configuration"]];

// By the first part of the address and the number of parts.
const VIEWS = {
  "/0": overview,
  "events/1": events,
  "events/3": timeline,
  "dead-letters/1": deadLetters,
  "dead-letters/2": deadLetter,
  "replays/1": replays,
  "replays/2": replay,
  "outbox/1": outbox,
  "rejections/1": rejections,
  "counts/1": counts,
  "audit/1": audit,
  "configuration/1": configuration,
};

let page;

function place() {
  const [path, ...query] = location.hash.replace(/^#/, "").split("?");
  let parts;
  try {
    parts = path.split("/").filter(Boolean).map(decodeURIComponent);
  } catch {
    parts = ["not an address"];
  }
  return { parts, query: new URLSearchParams(query.join("?")) };
}

// Opens an address, even the current one.
function go(to) {
  if (location.hash === to) show();
  else location.hash = to;
}

// Sets the current user, or none.
function know(found) {
  actor = found;
  who.replaceChildren(...(found ? [element("bdi", {}, found.name), ` (${found.role})`] : []));
}

function logIn(problem) {
  page?.leave();
  closeDialogs();
  sessionStorage.removeItem(TOKEN);
  know();
  nav.hidden = document.getElementById("logout").hidden = true;
  document.title = "Log in – Hookmill";
  const alert = element("p", { class: "alert", role: "alert", hidden: !problem }, problem?.message);
  const input = element("input", { id: "token", type: "password", required: true, autocomplete: "off", spellcheck: "false", "aria-describedby": "token-hint" });
  const submit = async (event) => {
    event.preventDefault();
    const token = input.value.trim();
    try {
      know(await api("/token", { token }));
      sessionStorage.setItem(TOKEN, token);
      show();
    } catch (error) {
      alert.textContent = error.message;
      alert.hidden = false;
      input.select();
    }
  };
  main.replaceChildren(
    element("h1", {}, "Log in"),
    alert,
    element(
      "form",
      { class: "card log-in", submit },
      element("div", { class: "field" }, element("label", { for: "token" }, "Token"), input, element("small", { id: "token-hint" }, "The token is stored in this tab only. ", element("code", {}, "hookmill token create NAME --role read"), " creates one; with ", element("code", {}, "--role operate"), " it can make changes.")),
      element("div", { class: "actions" }, element("button", { type: "submit", class: "primary" }, "Log in")),
    ),
  );
  input.focus();
}

function closeDialogs() {
  for (const dialog of document.querySelectorAll("dialog")) dialog.close();
}

async function show() {
  page?.leave();
  closeDialogs();
  if (!actor && !sessionStorage.getItem(TOKEN)) {
    // Without a token, Cloudflare Access may have authenticated the user.
    if (!("access" in document.documentElement.dataset)) return logIn();
    try {
      know(await api("/token"));
    } catch {
      return logIn();
    }
  }
  const { parts, query } = place();
  nav.hidden = document.getElementById("logout").hidden = false;
  for (const one of nav.querySelectorAll("a")) {
    if (one.getAttribute("href") === `#/${parts[0] ?? ""}`) one.setAttribute("aria-current", "page");
    else one.removeAttribute("aria-current");
  }
  const shown = (page = new Page());
  if (!actor) {
    // The tab was reloaded: the role is unknown before this response.
    shown.begin("Hookmill");
    await shown.try(async () => know(await shown.get("/token")));
    if (!actor || shown.signal.aborted) return;
  }
  const view = VIEWS[`${parts[0] ?? ""}/${parts.length}`];
  if (!view) {
    shown.begin("Not found");
    return shown.fill(element("p", {}, "This page does not exist. ", element("a", { href: "#/" }, "Overview")));
  }
  await shown.try(() => view(shown, parts, query));
}

nav.firstElementChild.append(...SECTIONS.map(([to, name]) => element("li", {}, element("a", { href: `#/${to}` }, name))));
document.getElementById("logout").addEventListener("click", () => logIn());
document.getElementById("skip").addEventListener("click", (event) => {
  // The hash of the address determines the page.
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", show);
show();
