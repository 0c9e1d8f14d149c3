// The environment of the browser test: a running pipeline with data of every kind, and the browser.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash, createHmac } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { DatabaseSync } from "node:sqlite";
import { chromium } from "playwright-core";

const here = dirname(fileURLToPath(import.meta.url));
const SECRET = "whsec_for-tests-only";
const screenshots = process.env.HOOKMILL_TEST_SCREENSHOTS;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

// Waits for a state, never for a duration.
export async function eventually(what, state) {
  for (let tries = 0; tries < 3000; tries++) {
    const found = await state();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.fail(`waited in vain: ${what}`);
}

// `hookmill dev` with the contract's configuration, on a port and a data folder of its own: it displays emails, and sends none.
export async function startPipeline() {
  const data = mkdtempSync(join(tmpdir(), "hookmill-browser-"));
  const config = join(here, "../hookmill.toml");
  const child = spawn(process.env.HOOKMILL_TEST_BINARY, ["dev", "--log", "error", "--config", config, "--data", data, "--listen", "127.0.0.1:0"], {
    env: { ...process.env, TEST_STRIPE_SECRET: SECRET },
    stdio: "ignore",
  });
  const listening = join(data, "listening");
  const address = await eventually("the pipeline listens", async () => {
    assert.equal(child.exitCode, null, "hookmill has ended");
    if (!existsSync(listening)) return undefined;
    const found = `http://${readFileSync(listening, "utf8")}`;
    return fetch(`${found}/healthz`).then((answer) => answer.ok && found, () => undefined);
  });
  const database = new DatabaseSync(join(data, "data.db"));
  database.exec("PRAGMA busy_timeout = 10000");
  const one = (sql) => Object.values(database.prepare(sql).get())[0];
  const post = (source, body, secret = SECRET) => {
    const text = JSON.stringify(body);
    const at = Math.floor(Date.now() / 1000);
    const signature = createHmac("sha256", secret).update(`${at}.${text}`).digest("hex");
    return fetch(`${address}/webhooks/${source}`, { method: "POST", headers: { "stripe-signature": `t=${at},v1=${signature}` }, body: text });
  };
  return {
    address,
    sql: (sql) => database.exec(sql),
    one,
    post,
    // Sends an event that is signed as Stripe signs.
    async send(source, type, id, object) {
      const body = { id, object: "event", created: Math.floor(Date.now() / 1000), data: { object }, type };
      const answer = await post(source, body);
      assert.equal(answer.status, 200, await answer.text());
      return JSON.stringify(body);
    },
    // Creates a token.
    token(name, role) {
      const token = `hookmill_${`for-tests-only-${name}`.padEnd(43, "-")}`;
      const hash = createHash("sha256").update(token).digest("hex");
      database.prepare("INSERT INTO admin_tokens (name, hash, role, created_at) VALUES (?, ?, ?, 0)").run(name, hash, role);
      return token;
    },
    async stop() {
      database.close();
      const ended = new Promise((resolve) => child.on("exit", resolve));
      child.kill();
      await ended;
      rmSync(data, { recursive: true, force: true });
    },
  };
}

export function startBrowser() {
  assert.ok(process.env.HOOKMILL_CHROMIUM, "HOOKMILL_CHROMIUM says which browser");
  mkdirSync(screenshots, { recursive: true });
  return chromium.launch({
    executablePath: process.env.HOOKMILL_CHROMIUM,
    headless: true,
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      // No request leaves this machine.
      "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ],
  });
}

// A window of its own, with a fresh profile. `faults` are what must not happen in it: dialogs, errors, violations of the policy,
// requests to elsewhere.
export async function openWindow(browser, pipeline, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: "light", reducedMotion: "reduce", ...options });
  context.setDefaultTimeout(60_000);
  const faults = [];
  await context.exposeBinding("reportViolation", (_source, text) => faults.push(text));
  await context.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => window.reportViolation(`policy: ${event.violatedDirective} ${event.blockedURI}`));
  });
  const page = await context.newPage();
  page.on("dialog", (dialog) => {
    faults.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on("pageerror", (error) => faults.push(`error: ${error.stack}`));
  page.on("console", (message) => {
    // The page shows errors of the API, and the browser also logs them.
    const answered = /^Failed to load resource: the server responded with a status of (401|403|404|422|429) /.test(message.text());
    if (["error", "warning"].includes(message.type()) && !answered) faults.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => {
    if (![pipeline.address, "data:"].some((start) => request.url().startsWith(start))) faults.push(`request: ${request.url()}`);
  });
  return { page, faults, close: () => context.close() };
}

export const screenshot = (page, name, fullPage = true) => page.screenshot({ path: join(screenshots, `${name}.png`), fullPage });

// The findings of axe, in words.
export async function barriers(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  return violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => `${node.target} ${node.failureSummary}`).join("; ")}`);
}
