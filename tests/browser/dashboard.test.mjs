// The dashboard in a real browser, with a real pipeline: an operator's tasks during an incident, with and without a mouse, in light
// and dark mode, on a desktop and on a phone.
import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { barriers, eventually, openWindow, screenshot, startBrowser, startPipeline } from "./support.mjs";

const LETTERS = 30;
const MARKUP = `<script>alert("title")</script>`;
const HOSTILE = {
  id: `evt_<script>alert("id")</script>`,
  type: `test.<img src=x onerror=alert("type")>`,
  object: { text: `</pre><script>window.ran = true; alert("body")</script><img src=x onerror="window.ran = true">`, [MARKUP]: `" onmouseover="alert(1)` },
};

let pipeline;
let browser;
let window;
let page;
let tokens;
let hostileBody;

before(async () => {
  pipeline = await startPipeline();
  tokens = { ines: pipeline.token("ines", "operate"), rui: pipeline.token("rui", "read") };
  for (let n = 0; n < 8; n++) await pipeline.send("stripe", "test.counted", `evt_good_${n}`, { id: "good", amount: 1 });
  await pipeline.send("stripe", "customer.created", "evt_customer", { id: "cus_1", object: "customer", email: "ada@example.com" });
  for (const to of ["ada", "grace"]) await pipeline.send("stripe", "test.mailed", `evt_mail_${to}`, { to: `${to}@example.com`, name: to });
  // Earlier activity.
  const minute = Math.floor(Date.now() / 60_000);
  for (let ago = 10; ago < 60; ago++) {
    const [events, lag] = [Math.round(20 + 15 * Math.sin(ago / 6)), Math.round(300 + 200 * Math.cos(ago / 4))];
    pipeline.sql(`INSERT INTO activity (minute, source, outcome, events, lag) VALUES (${minute - ago}, 'stripe', 'applied', ${events}, ${lag})`);
  }
  // Two kinds of errors that a replay resolves, one that it does not, and an event without a rule.
  pipeline.sql("CREATE TRIGGER broken BEFORE INSERT ON tallies BEGIN SELECT RAISE(ABORT, 'out of order'); END");
  for (let n = 0; n < LETTERS; n++) await pipeline.send("stripe", "test.counted", `evt_letter_${n}`, { id: "letters", amount: 1 });
  for (let n = 0; n < 2; n++) await pipeline.send("stripe", "test.guarded", `evt_guarded_${n}`, { id: `guarded_${n}`, number: -1, text: "less than nothing" });
  await pipeline.send("strict", "invoice.made_up", "evt_strict", { id: "in_1" });
  hostileBody = await pipeline.send("strict", HOSTILE.type, HOSTILE.id, HOSTILE.object);
  for (let n = 0; n < 3; n++) assert.equal((await pipeline.post("stripe", { id: "evt_forged" }, "whsec_of-somebody-else")).status, 401);
  await eventually("the events are applied", () => pipeline.one("SELECT count(*) FROM events") === 11);
  await eventually("the others are dead", () => pipeline.one("SELECT count(*) FROM dead_letters WHERE state = 'dead'") === LETTERS + 4);
  await eventually("emails are displayed", () => pipeline.one("SELECT count(*) FROM outbox WHERE state = 'sent'") === 2);
  await eventually("rejections are recorded", () => pipeline.one("SELECT sum(count) FROM rejection_counts") === 3);
  pipeline.sql("DROP TRIGGER broken");
  pipeline.sql("UPDATE outbox SET state = 'refused', error = 'invalid address' WHERE event_id = 'evt_mail_grace'");
  pipeline.sql("INSERT INTO suppressions (address, reason, source, event_id, version, created_at) VALUES ('bob@example.com', 'bounced', 'resend', 'msg_1', 0, 0)");
  browser = await startBrowser();
  window = await openWindow(browser, pipeline);
  page = window.page;
});

after(async () => {
  await browser?.close();
  await pipeline?.stop();
});

afterEach(() => assert.deepEqual(window.faults.splice(0), []));

const heading = (name, on = page) => on.getByRole("heading", { level: 1, name, exact: true });
const alert = (on = page) => on.getByRole("alert");
const text = (found) => found.textContent();
const rows = (table) => table.getByRole("row").evaluateAll((rows) => rows.map((row) => [...row.children].map((cell) => cell.textContent)));
// Announcements for screen readers repeat some of the texts.
const shown = (text, on = page) => on.getByRole("main").getByText(text);

async function logIn(on, token) {
  await on.goto(`${pipeline.address}/admin`);
  await on.getByLabel("Token").fill(token);
  await on.getByRole("button", { name: "Log in" }).click();
}

async function open(name, on = page) {
  await on.getByRole("navigation", { name: "Sections" }).getByRole("link", { name, exact: true }).click();
  await heading(name, on).waitFor();
}

async function because(reason, action) {
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Reason").fill(reason);
  await dialog.getByRole("button", { name: action, exact: true }).click();
}

test("the files forbid other scripts and contain no data", async () => {
  for (const [path, kind] of [["/admin", "text/html"], ["/admin/", "text/html"], ["/admin/app.js", "text/javascript"], ["/admin/words.js", "text/javascript"], ["/admin/style.css", "text/css"]]) {
    const answer = await fetch(pipeline.address + path);
    assert.equal(answer.status, 200, path);
    assert.match(answer.headers.get("content-type"), new RegExp(`^${kind}`));
    assert.equal(
      answer.headers.get("content-security-policy"),
      "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    );
    assert.equal(answer.headers.get("x-content-type-options"), "nosniff");
    assert.equal(answer.headers.get("referrer-policy"), "no-referrer");
    assert.equal(answer.headers.get("cache-control"), "no-cache");
  }
});

test("a visitor without a valid token stays on the login page with the API's error", async () => {
  await logIn(page, "hookmill_nobody's");
  await alert().filter({ hasText: "Missing or invalid token: send `Authorization: Bearer" }).waitFor();
  await screenshot(page, "log-in");
  assert.deepEqual(await barriers(page), []);
});

test("a user with a token sees the overview", async () => {
  await logIn(page, tokens.ines);
  await heading("Overview").waitFor();
  const tile = (name) => page.locator(".tile").filter({ hasText: name });
  await tile("Dead letters").filter({ hasText: String(LETTERS + 4) }).waitFor();
  await tile("Oldest dead letter").filter({ hasText: /\d (ms|s|min)/ }).waitFor();
  await tile("On the queue").filter({ hasText: "0" }).waitFor();
  const chart = page.getByRole("img", { name: /^Events per minute, from .* until now: at most/ });
  await chart.waitFor();
  assert.equal(await chart.locator("rect").count(), 60);
  await page.getByRole("img", { name: /^Longest lag, from .* until now: at most .* (ms|s)/ }).waitFor();
  const table = (name) => rows(page.getByRole("table", { name }));
  assert.deepEqual(await table("Dead letters by reason"), [["Reason", "Letters"], ["permanent", "2"], ["refused", String(LETTERS + 2)]]);
  assert.deepEqual(await table("Outbox"), [["Channel", "State", "Count"], ["email", "refused", "1"]]);
  // Sent messages are counted by provider.
  const taken = (await table("Sent through providers (UTC)")).map(([provider, , sent, requests]) => [provider, sent, requests]);
  assert.deepEqual(taken, [["Provider", "Sent", "Requests"], ["local", "2", "1"], ["local", "2", "1"]]);
  assert.deepEqual(await table("Rejections in this window"), [["Source", "Reason", "Requests"], ["stripe", "no_matching_signature", "3"]]);
  await page.getByRole("link", { name: "Day", exact: true }).click();
  await page.locator("[aria-current=true]", { hasText: "Day" }).waitFor();
  // The page refreshes itself.
  const before = await text(tile("Events per minute").locator(".figure"));
  for (let n = 0; n < 5; n++) await pipeline.send("stripe", "test.counted", `evt_late_${n}`, { id: "good", amount: 1 });
  await eventually("it has the events", async () => (await text(tile("Events per minute").locator(".figure"))) !== before);
  const figure = page.getByRole("figure").first();
  await figure.getByText("As a table").click();
  await figure.getByRole("table", { name: "Events per minute" }).waitFor();
});

test("a search finds an event with its history", async () => {
  await open("Events");
  await page.getByLabel("Type").fill("customer.*");
  await page.getByRole("button", { name: "Search" }).click();
  await shown("1 shown.").waitFor();
  await page.getByRole("link", { name: "evt_customer" }).click();
  await heading("Event").waitFor();
  const steps = page.getByRole("main").getByRole("list").getByRole("listitem");
  await steps.last().waitFor();
  assert.deepEqual(await steps.getByRole("heading").allInnerTexts(), ["Received", "Applied"]);
  assert.match(page.url(), /#\/events\/stripe\/evt_customer$/);
  await screenshot(page, "timeline");
  // Back returns to the search.
  await page.goBack();
  await shown("1 shown.").waitFor();
  assert.equal(await page.getByLabel("Type").inputValue(), "customer.*");
  // The history of an email continues.
  await page.goto(`${pipeline.address}/admin#/events/stripe/evt_mail_ada`);
  await steps.getByRole("heading", { name: "Sent" }).waitFor();
});

test("dead letters are grouped by error, and one is viewed with its body", async () => {
  await open("Dead letters");
  const groups = page.locator(".cards > li");
  await groups.first().waitFor();
  assert.match(await text(groups.first().getByRole("heading")), new RegExp(`^${LETTERS} letters: .*out of order`));
  assert.equal(await groups.count(), 4);
  await screenshot(page, "dead-letters");
  await page.getByLabel("Event id").fill("evt_letter_7");
  await page.getByRole("button", { name: "Search" }).click();
  await shown("1 shown.").waitFor();
  await page.getByRole("link", { name: "evt_letter_7" }).click();
  await heading("Dead letter").waitFor();
  const body = page.getByRole("region", { name: "Body" });
  assert.match(await text(body), /^\{\n {2}"id": "evt_letter_7",\n/);
  await page.getByLabel("Indented").uncheck();
  assert.match(await text(body), /^\{"id":"evt_letter_7","object":"event",/);
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.getByRole("button", { name: "Copy evt_letter_7" }).click();
  await page.getByRole("status").filter({ hasText: "Copied" }).waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), "evt_letter_7");
  assert.deepEqual(await barriers(page), []);
});

test("the content of an event stays text", async () => {
  await open("Events");
  await page.getByLabel("Event id").fill(HOSTILE.id);
  await page.getByRole("button", { name: "Search" }).click();
  await shown("1 shown.").waitFor();
  await page.getByText(HOSTILE.type).waitFor();
  await page.getByRole("link", { name: HOSTILE.id }).click();
  await heading("Event").waitFor();
  await page.getByText(HOSTILE.id).first().waitFor();
  await page.getByRole("main").getByRole("listitem").getByRole("link").first().click();
  await heading("Dead letter").waitFor();
  await page.getByLabel("Indented").uncheck();
  // This source has redactions, so its bodies are serialized again.
  assert.deepEqual(JSON.parse(await text(page.getByRole("region", { name: "Body" }))), JSON.parse(hostileBody));
  assert.equal(await page.locator("main script, main img").count(), 0);
  await screenshot(page, "hostile");
  for (const place of ["#/dead-letters", "#/events", "#/audit"]) {
    await page.goto(`${pipeline.address}/admin${place}`);
    await page.getByRole("heading", { level: 1 }).waitFor();
    await page.getByRole("table").first().or(shown("No changes yet.")).waitFor();
    assert.equal(await page.locator("main script, main img").count(), 0);
  }
  assert.equal(await page.evaluate(() => window.ran), undefined);
  assert.equal(await page.locator("script").count(), 1);
});

test("a replay is planned and run to its end", async () => {
  // First a single one, as docs/admin.md recommends.
  await open("Dead letters");
  await page.getByRole("link", { name: "evt_letter_0", exact: true }).click();
  await page.getByRole("button", { name: "Replay…" }).click();
  await because("the trigger is gone", "Replay");
  await heading("Replay").waitFor();
  await shown("1 of 1 sent, 1 applied, 0 failed again").waitFor();
  // Some of the others, so that another replay has the rest.
  await open("Replays");
  const plan = page.getByRole("form", { name: "Plan a replay" });
  await plan.getByRole("button", { name: "Plan" }).click();
  await alert().filter({ hasText: "Invalid request: no filter given" }).waitFor();
  await plan.getByLabel("Source").fill("stripe");
  await plan.getByLabel("Type").fill("test.*");
  await plan.getByLabel("Reason").selectOption("refused");
  await plan.getByRole("button", { name: "Plan" }).click();
  await heading("Replay").waitFor();
  const total = LETTERS - 1 + 2;
  await shown(`0 of ${total} sent`).waitFor();
  await shown(`${total} letters.`).waitFor();
  await screenshot(page, "plan");
  await page.getByRole("button", { name: "Run…" }).click();
  const dialog = page.getByRole("dialog", { name: "Run this replay" });
  await dialog.getByLabel("Letters per second").fill("4");
  await screenshot(page, "run", false);
  assert.deepEqual(await barriers(page), []);
  await because("the trigger is gone", "Run");
  const bar = page.getByRole("progressbar");
  await page.locator(".badge", { hasText: "running" }).waitFor();
  await eventually("some are sent", async () => (await bar.evaluate((bar) => bar.value)) > 0);
  await screenshot(page, "running");
  await page.locator(".badge", { hasText: "done" }).waitFor();
  await shown(`${total} of ${total} sent, ${LETTERS - 1} applied, 2 failed again`).waitFor();
  assert.deepEqual(await bar.evaluate((bar) => [bar.value, bar.max]), [total, total]);
  assert.match(await text(page.getByRole("status")), /done/);
  await screenshot(page, "done");
  assert.equal(pipeline.one("SELECT amount FROM tallies WHERE id = 'letters'"), LETTERS);
});

test("another is paused, resumed and cancelled; unsent letters stay dead", async () => {
  pipeline.sql("CREATE TRIGGER broken BEFORE INSERT ON tallies BEGIN SELECT RAISE(ABORT, 'out of order'); END");
  for (let n = 0; n < LETTERS; n++) await pipeline.send("stripe", "test.counted", `evt_again_${n}`, { id: "again", amount: 1 });
  const dead = () => pipeline.one("SELECT count(*) FROM dead_letters WHERE state = 'dead' AND type = 'test.counted'");
  await eventually("they are dead", () => dead() === LETTERS);
  pipeline.sql("DROP TRIGGER broken");
  await open("Dead letters");
  await page.getByRole("button", { name: /^Plan a replay of letters with the error .*out of order/ }).click();
  await heading("Replay").waitFor();
  await page.getByRole("button", { name: "Run…" }).click();
  await page.getByLabel("Letters per second").fill("1");
  await because("to try some", "Run");
  await eventually("some are sent", async () => (await page.getByRole("progressbar").evaluate((bar) => bar.value)) > 0);
  await page.getByRole("button", { name: "Pause…" }).click();
  await because("to look at them", "Pause");
  await page.locator(".badge", { hasText: "paused" }).waitFor();
  await page.getByRole("button", { name: "Resume…" }).click();
  await because("they are good", "Resume");
  await page.locator(".badge", { hasText: "running" }).waitFor();
  await page.getByRole("button", { name: "Cancel the replay…" }).click();
  await because("enough", "Cancel the replay");
  await page.locator(".badge", { hasText: "cancelled" }).waitFor();
  await screenshot(page, "cancelled");
  assert.equal(await page.getByRole("button", { name: /Resume|Run|Pause|Cancel/ }).count(), 0);
  const sent = () => pipeline.one("SELECT sent FROM replays WHERE state = 'cancelled'");
  await eventually("what was sent is applied, and the rest is dead", () => dead() === LETTERS - sent() && pipeline.one("SELECT amount FROM tallies WHERE id = 'again'") === sent());
  assert.ok(sent() > 0 && dead() > 0);
});

test("an import is planned, and a source without an API is refused", async () => {
  await open("Replays");
  const plan = page.getByRole("form", { name: "Plan an import" });
  await plan.getByLabel("Source").fill("quiet");
  await plan.getByRole("button", { name: "Plan" }).click();
  await alert().filter({ hasText: "the source `quiet` has no API" }).waitFor();
  await plan.getByLabel("Source").fill("billing");
  await plan.getByRole("button", { name: "Plan" }).click();
  await heading("Replay").waitFor();
  await shown("All objects of billing: customers.").waitFor();
  await shown("0 sent, 0 applied, 0 failed").waitFor();
  assert.deepEqual(await barriers(page), []);
  await page.getByRole("button", { name: "Cancel the replay…" }).click();
  await because("it was a try", "Cancel the replay");
  await page.locator(".badge", { hasText: "cancelled" }).waitFor();
});

test("a reconciliation is planned, and its report names the differences", async () => {
  await open("Replays");
  const plan = page.getByRole("form", { name: "Plan a reconciliation" });
  await plan.getByLabel("Source").fill("billing");
  await plan.getByLabel("First objects of each list").fill("500");
  await plan.getByLabel("Repair").selectOption("yes");
  await plan.getByRole("button", { name: "Plan" }).click();
  await heading("Replay").waitFor();
  assert.deepEqual(JSON.parse(pipeline.one("SELECT filter FROM replays WHERE kind = 'reconcile'")), { source: "billing", sample: 500, repair: true });
  // The consumers write the report.
  const report = { objects: { customers: 500 }, tables: { asked: { missing: 1, different: 1, repaired: 1, columns: { name: 1 } } }, unlisted: ["tallies"], complete: true, withheld: true };
  const generation = pipeline.one("SELECT generation FROM replays WHERE kind = 'reconcile'");
  pipeline.sql(`INSERT INTO drifts VALUES (${generation}, 'asked', '["${MARKUP.replaceAll('"', '\\"')}"]', 'different', 'cus_1', 'customers', NULL, '["name"]', 'confirmed')`);
  pipeline.sql(`UPDATE replays SET state = 'done', report = '${JSON.stringify(report)}' WHERE kind = 'reconcile'`);
  await page.getByRole("table", { name: "By table" }).waitFor();
  const cells = async (name) => (await rows(page.getByRole("table", { name }))).at(-1);
  assert.deepEqual(await cells("By table"), ["asked", "1", "0", "1", "0", "1", "0", "name 1"]);
  assert.deepEqual(await cells("The first differences"), ["asked", MARKUP, "different", "name", "confirmed"]);
  await shown("500 objects compared.").waitFor();
  await shown("The repair deleted no rows").waitFor();
  await shown("Not compared, because no list contains their objects: tallies.").waitFor();
  assert.deepEqual(await barriers(page), []);
});

test("an email is sent again, and a suppression is removed", async () => {
  await open("Outbox");
  await page.getByRole("button", { name: "Send again to grace@example.com" }).click();
  await because("she has a mailbox now", "Send again");
  await eventually("it is sent", () => pipeline.one("SELECT count(*) FROM outbox WHERE state = 'sent'") === 2);
  await page.getByRole("button", { name: "Remove the suppression of bob@example.com" }).click();
  await because("he asked for it", "Remove the suppression");
  await shown("No suppressed addresses.").waitFor();
});

test("rejections and the audit are listed", async () => {
  await open("Rejections");
  await page.getByRole("table", { name: "The last of each kind" }).getByText("no_matching_signature").first().waitFor();
  await open("Audit");
  const table = page.getByRole("table", { name: "Changes" });
  await table.waitFor();
  // Every body that the dashboard shows is in the audit as well.
  const acts = (await rows(table)).slice(1).map(([, who, what]) => `${who} ${what}`);
  assert.ok(acts.includes("ines body.view"));
  assert.deepEqual(acts.filter((act) => act !== "ines body.view"), [
    "ines suppression.remove",
    "ines outbox.retry",
    "ines reconcile.plan",
    "ines replay.cancel",
    "ines import.plan",
    "ines replay.cancel",
    "ines replay.resume",
    "ines replay.pause",
    "ines replay.run",
    "ines replay.plan",
    "ines replay.run",
    "ines replay.plan",
    "ines letter.replay",
  ]);
});

test("the counts show what events lacked, and unexpected API versions", async () => {
  const today = Math.floor(Date.now() / 86_400_000);
  for (const [day, rows, absent] of [[today, 3, '{"text":2,"number":1}'], [today - 3, 4, '{"number":4}']]) {
    pipeline.sql(`INSERT INTO rule_counts VALUES (${day}, 'a-rule', ${rows}, '${absent}')`);
  }
  for (const [version, expected] of [["2026-10-28.endive", 1], [`<img src=x onerror=alert(1)>`, 0]]) {
    pipeline.sql(`INSERT INTO api_version_counts VALUES (${today}, 'stripe', '${version}', ${expected}, 5, ${expected}, ${expected})`);
  }
  await open("Counts");
  const rules = page.getByRole("table", { name: "Rows by rule" });
  await rules.waitFor();
  // The pipeline counts rows of other rules, once a minute.
  const counted = async () => (await rows(rules)).filter(([name]) => ["Rule", "a-rule"].includes(name));
  assert.deepEqual(await counted(), [["Rule", "Rows", "Without a value"], ["a-rule", "7", "number: 5text: 2"]]);
  const versions = (await rows(page.getByRole("table", { name: "Events by API version" }))).map((cells) => [cells[1], cells[2], cells[5]]);
  assert.deepEqual(versions, [["Version", "Events", "Expected"], ["2026-10-28.endive", "5", "yes"], ["<img src=x onerror=alert(1)>", "5", "unexpected"]]);
  await screenshot(page, "counts");
  assert.deepEqual(await barriers(page), []);
  await page.getByRole("link", { name: "Today", exact: true }).click();
  await page.locator("[aria-current=true]", { hasText: "Today" }).waitFor();
  await rules.waitFor();
  assert.deepEqual((await counted())[1], ["a-rule", "3", "text: 2number: 1"]);
});

test("a long list continues on the next page", async () => {
  await open("Events");
  await shown("50 shown, and there are more.").waitFor();
  await page.getByRole("button", { name: "More" }).click();
  const all = pipeline.one("SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM dead_letters WHERE state = 'dead')");
  await shown(`${all} shown.`).waitFor();
  const found = (await rows(page.getByRole("table", { name: "Events" }))).slice(1);
  assert.equal(new Set(found.map((cells) => cells[3])).size, all);
  assert.equal(await page.getByRole("button", { name: "More" }).count(), 0);
  // The button is gone, but the focus is not lost.
  assert.equal(await page.evaluate(() => document.activeElement.textContent), `${all} shown.`);
});

test("a token with the role `read` sees no controls for changes, and the reason", async () => {
  const { page: other, faults, close } = await openWindow(browser, pipeline);
  await logIn(other, tokens.rui);
  const banner = other.getByRole("banner");
  await banner.getByText("rui (read)").waitFor();
  const why = other.getByRole("main").getByText("This token can only view.");
  const letter = pipeline.one("SELECT id FROM dead_letters WHERE event_id = 'evt_strict'");
  const replay = pipeline.one("SELECT id FROM replays WHERE state = 'done' LIMIT 1");
  pipeline.sql(`UPDATE replays SET state = 'paused' WHERE id = '${replay}'`);
  pipeline.sql("UPDATE outbox SET state = 'refused' WHERE event_id = 'evt_mail_grace'");
  pipeline.sql("INSERT INTO suppressions (address, reason, source, event_id, version, created_at) VALUES ('eve@example.com', 'bounced', 'resend', 'msg_1', 0, 0)");
  for (const [hash, title] of [
    ["#/dead-letters", "Dead letters"],
    [`#/dead-letters/${letter}`, "Dead letter"],
    ["#/replays", "Replays"],
    [`#/replays/${replay}`, "Replay"],
    ["#/outbox?state=refused", "Outbox"],
  ]) {
    await other.goto(`${pipeline.address}/admin${hash}`);
    await heading(title, other).waitFor();
    await why.waitFor();
    const buttons = await other.getByRole("main").getByRole("button").allInnerTexts();
    assert.deepEqual(buttons.filter((name) => !["Search", "Copy", "More"].includes(name)), [], title);
    assert.deepEqual(await barriers(other), [], title);
  }
  await screenshot(other, "read-only");
  // After a reload, the user is still known.
  await other.reload();
  await why.waitFor();
  await banner.getByText("rui (read)").waitFor();
  // With another token, all controls exist.
  await other.getByRole("button", { name: "Log out" }).click();
  assert.equal(await other.getByText("rui (read)").count(), 0);
  await logIn(other, tokens.ines);
  await banner.getByText("ines (operate)").waitFor();
  await other.goto(`${pipeline.address}/admin#/outbox?state=refused`);
  await other.getByRole("button", { name: "Remove the suppression of eve@example.com" }).waitFor();
  assert.equal(await why.count(), 0);
  pipeline.sql(`UPDATE replays SET state = 'done' WHERE id = '${replay}'`);
  pipeline.sql("UPDATE outbox SET state = 'sent' WHERE event_id = 'evt_mail_grace'");
  pipeline.sql("DELETE FROM suppressions WHERE address = 'eve@example.com'");
  assert.deepEqual(faults, []);
  await close();
});

test("a user of Cloudflare Access needs no token", async () => {
  const { page: other, faults, close } = await openWindow(browser, pipeline);
  // Like Cloudflare Access, which identifies the user of each request.
  await other.route("**/admin/api/**", (route) => {
    const headers = route.request().headers();
    assert.equal(headers.authorization, undefined);
    return route.continue({ headers: { ...headers, authorization: `Bearer ${tokens.ines}` } });
  });
  await other.goto(`${pipeline.address}/admin`);
  await heading("Overview", other).waitFor();
  await other.getByText("ines (operate)").waitFor();
  await open("Replays", other);
  assert.deepEqual(faults, []);
  await close();
});

test("a revoked token leads back to the login page", async () => {
  const { page: other, faults, close } = await openWindow(browser, pipeline);
  await logIn(other, tokens.rui);
  // This page does not refresh itself, so the click sends the first request with the revoked token.
  await open("Configuration", other);
  await other.getByRole("table", { name: "Rules" }).waitFor();
  pipeline.sql("DELETE FROM admin_tokens WHERE name = 'rui'");
  await other.getByRole("link", { name: "Replays", exact: true }).click();
  await heading("Log in", other).waitFor();
  await alert(other).filter({ hasText: "Missing or invalid token" }).waitFor();
  assert.equal(await other.evaluate(() => sessionStorage.length), 0);
  assert.deepEqual(faults, []);
  await close();
});

test("the loaded configuration is shown", async () => {
  await open("Configuration");
  const table = page.getByRole("table", { name: "Rules" });
  await table.waitFor();
  const rules = await rows(table);
  assert.deepEqual(rules[0], ["Rule", "On", "Effect", "Target"]);
  assert.deepEqual(rules.find(([name]) => name === "tallies"), ["tallies", "stripe:test.countedswept:test.counted", "counts", "tallies"]);
  assert.deepEqual(rules.find(([name]) => name === "mail").slice(2), ["sends an email", "test"]);
  assert.ok(rules.some(([, , , table]) => table === "subscriptions"), "those of presets as well");
  const file = await text(page.getByRole("region", { name: "hookmill.toml" }));
  assert.deepEqual(JSON.parse(file).sources.quiet.secrets, ["env:TEST_STRIPE_SECRET"]);
  await page.getByRole("button", { name: /^Copy [0-9a-f]{64}$/ }).waitFor();
  assert.deepEqual(await barriers(page), []);
});

test("the body of an applied event is shown, and stays text", async () => {
  const body = await pipeline.send("stripe", "test.unheard.of", "evt_script", HOSTILE.object);
  await eventually("it took effect", () => pipeline.one("SELECT count(*) FROM events WHERE id = 'evt_script'") === 1);
  const show = page.getByRole("button", { name: "Show the body" });
  const region = page.getByRole("region", { name: "Body" });
  await page.goto(`${pipeline.address}/admin#/events/stripe/evt_script`);
  await show.click();
  await region.waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute("aria-label")), "Body");
  await page.getByLabel("Indented").uncheck();
  assert.equal(await text(region), body);
  assert.equal(await page.locator("main script, main img").count(), 0);
  assert.equal(await page.evaluate(() => window.ran), undefined);
  assert.deepEqual(await barriers(page), []);
  await screenshot(page, "body");
  // Without a stored message there is a note; a dead letter has its own message.
  pipeline.sql("DELETE FROM event_messages WHERE id = 'evt_script'");
  await page.reload();
  await show.click();
  await shown("the message of this event is not kept").waitFor();
  await page.goto(`${pipeline.address}/admin#/events/strict/evt_strict`);
  await show.click();
  await region.filter({ hasText: "evt_strict" }).waitFor();
});

test("applied events are reprocessed", async () => {
  await page.goto(`${pipeline.address}/admin#/events/stripe/evt_customer`);
  const wrote = page.getByRole("main").getByText("cus_1");
  await wrote.waitFor();
  assert.equal(await text(wrote.locator("..")), "customers id cus_1");
  pipeline.sql("UPDATE customers SET email = 'outdated'");
  await open("Replays");
  const form = page.getByRole("form", { name: "Plan a reprocessing" });
  await form.getByRole("button", { name: "Plan" }).click();
  await alert().filter({ hasText: "Invalid request" }).waitFor();
  await form.getByLabel("Type").fill("customer.*");
  await form.getByLabel("Rules").fill("stripe-customers, tallies");
  await form.getByRole("button", { name: "Plan" }).click();
  await heading("Replay").waitFor();
  await shown("1 event. What a later event has written stays as it is.").waitFor();
  assert.deepEqual(await rows(page.getByRole("table", { name: "By type" })), [["Source", "Type", "Events"], ["stripe", "customer.created", "1"]]);
  await shown("Reprocessing 3").waitFor();
  await shown("stripe-customers, tallies").waitFor();
  await screenshot(page, "reprocess-plan");
  assert.deepEqual(await barriers(page), []);
  await page.getByRole("button", { name: "Run…" }).click();
  await page.getByLabel("Events per second").fill("10");
  await because("a rule has changed", "Run");
  await page.locator(".badge", { hasText: "done" }).waitFor();
  await shown("1 of 1 sent, 1 applied, 0 failed").waitFor();
  assert.equal(pipeline.one("SELECT email FROM customers"), "ada@example.com");
  // Each names its kind.
  await open("Replays");
  const all = page.getByRole("table", { name: "Replays" });
  await all.getByText("Reprocessing 3").waitFor();
  const found = (await rows(all)).slice(1);
  assert.deepEqual(found.map((cells) => cells[4]), ["Reprocessing 3", "Reconciliation 2", "Import 1", ...found.slice(3).map(() => "Dead letters")]);
  assert.equal(found[0][5], "rules stripe-customers, tallies, type customer.*");
});

test("an unavailable server is reported, and the page recovers", async () => {
  const { page: other, faults, close } = await openWindow(browser, pipeline);
  await logIn(other, tokens.ines);
  await heading("Overview", other).waitFor();
  await other.context().setOffline(true);
  await alert(other).filter({ hasText: "Hookmill does not respond" }).waitFor();
  await other.context().setOffline(false);
  await alert(other).waitFor({ state: "detached" });
  assert.ok(faults.every((fault) => fault.includes("ERR_INTERNET_DISCONNECTED")), faults.join());
  await close();
});

test("a hidden page sends no requests", async () => {
  const { page: other, faults, close } = await openWindow(browser, pipeline);
  await other.clock.install();
  await logIn(other, tokens.ines);
  await heading("Overview", other).waitFor();
  await other.locator(".tile").first().waitFor();
  let asked = 0;
  other.on("request", () => asked++);
  const turn = (hidden) =>
    other.evaluate((hidden) => {
      Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }, hidden);
  await turn(true);
  await other.clock.runFor("10:00");
  assert.equal(asked, 0);
  // A visible page refreshes at once.
  await turn(false);
  await eventually("it asks", () => asked === 1);
  assert.deepEqual(faults, []);
  await close();
});

test("a keyboard is sufficient", async () => {
  const { page: other, faults, close } = await openWindow(browser, pipeline);
  await other.goto(`${pipeline.address}/admin`);
  await heading("Log in", other).waitFor();
  const focused = () =>
    other.evaluate(() => {
      const one = document.activeElement;
      const style = getComputedStyle(one);
      return { name: one.getAttribute("aria-label") ?? one.labels?.[0]?.textContent ?? one.textContent, outline: style.outlineStyle, width: style.outlineWidth };
    });
  // Tabs to the element with this name; the focus is visible at every step.
  const tabTo = async (name) => {
    for (let steps = 0; steps < 200; steps++) {
      await other.keyboard.press("Tab");
      const { name: found, outline, width } = await focused();
      if (found === "" || found === null) continue;
      if (await other.evaluate(() => document.activeElement === document.body)) continue;
      assert.ok(outline !== "none" && width !== "0px", `the focus is not seen on ${found}`);
      if (found === name) return;
    }
    assert.fail(`no way to ${name}`);
  };
  // The field has the focus already.
  assert.equal((await focused()).name, "Token");
  await other.keyboard.type(tokens.ines);
  await other.keyboard.press("Enter");
  await heading("Overview", other).waitFor();
  assert.equal((await focused()).name, "Overview");
  await tabTo("Skip to content");
  await other.keyboard.press("Enter");
  assert.equal(await other.evaluate(() => document.activeElement.id), "main");
  await tabTo("Dead letters");
  await other.keyboard.press("Enter");
  await heading("Dead letters", other).waitFor();
  await other.getByRole("link", { name: "evt_strict", exact: true }).waitFor();
  await tabTo("evt_strict");
  await other.keyboard.press("Enter");
  await heading("Dead letter", other).waitFor();
  await other.getByRole("button", { name: "Discard…" }).waitFor();
  await tabTo("Discard…");
  // Escape returns the focus.
  await other.keyboard.press("Enter");
  await other.getByRole("dialog").waitFor();
  await other.keyboard.press("Escape");
  await other.getByRole("dialog").waitFor({ state: "detached" });
  assert.equal((await focused()).name, "Discard…");
  await other.keyboard.press("Enter");
  await other.getByRole("dialog").waitFor();
  assert.equal((await focused()).name, "Reason");
  await other.keyboard.type("it does not matter");
  await other.keyboard.press("Enter");
  await other.locator(".badge", { hasText: "discarded" }).waitFor();
  assert.equal(pipeline.one("SELECT state FROM dead_letters WHERE event_id = 'evt_strict'"), "discarded");
  assert.deepEqual(faults, []);
  await close();
});

test("every page is accessible: light and dark, on a desktop and on a phone", async () => {
  const letter = pipeline.one("SELECT id FROM dead_letters WHERE source = 'strict' AND event_id <> 'evt_strict'");
  const replay = pipeline.one("SELECT id FROM replays WHERE state = 'cancelled'");
  const hostile = encodeURIComponent(HOSTILE.id);
  const pages = {
    overview: ["#/", "Overview"],
    events: ["#/events", "Events"],
    event: [`#/events/strict/${hostile}`, "Event"],
    "dead-letters": ["#/dead-letters", "Dead letters"],
    "dead-letter": [`#/dead-letters/${letter}`, "Dead letter"],
    replays: ["#/replays", "Replays"],
    replay: [`#/replays/${replay}`, "Replay"],
    outbox: ["#/outbox", "Outbox"],
    rejections: ["#/rejections", "Rejections"],
    counts: ["#/counts", "Counts"],
    audit: ["#/audit", "Audit"],
    configuration: ["#/configuration", "Configuration"],
    nowhere: ["#/nowhere", "Not found"],
  };
  const grounds = [];
  for (const [name, options] of [
    ["desk-light", {}],
    ["desk-dark", { colorScheme: "dark" }],
    ["phone-light", { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true }],
    ["phone-dark", { viewport: { width: 360, height: 740 }, colorScheme: "dark", isMobile: true, hasTouch: true }],
  ]) {
    const { page: other, faults, close } = await openWindow(browser, pipeline, options);
    await logIn(other, tokens.ines);
    await heading("Overview", other).waitFor();
    grounds.push(await other.evaluate(() => getComputedStyle(document.body).backgroundColor));
    for (const [where, [hash, title]] of Object.entries(pages)) {
      await other.goto(`${pipeline.address}/admin${hash}`);
      await heading(title, other).waitFor();
      await other.getByText("Loading…").waitFor({ state: "detached" });
      await screenshot(other, `${where}-${name}`);
      const fits = async () => {
        const [wide, window] = await other.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
        assert.ok(wide <= window, `${where} is ${wide} wide, and the ${name} ${window}`);
      };
      await fits();
      assert.deepEqual(await barriers(other), [], `${where}, ${name}`);
      if (name !== "desk-light") continue;
      // Below and above the layout's breakpoint.
      for (const width of [961, 960, 500]) {
        await other.setViewportSize({ width, height: 900 });
        await fits();
      }
      await other.setViewportSize({ width: 1280, height: 900 });
    }
    assert.deepEqual(faults, []);
    await close();
  }
  assert.equal(new Set(grounds).size, 2, "light and dark differ");
});
