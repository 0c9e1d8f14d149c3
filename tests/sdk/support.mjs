// The parts of every cross-check: the running binary, random requests, and the verdicts of a library and the binary.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { generateKeyPairSync, randomBytes, randomInt } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { Agent, createServer, request as send } from "node:http";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

const binary = process.env.HOOKMILL_TEST_BINARY;
const here = dirname(fileURLToPath(import.meta.url));
const config = join(here, "hookmill.toml");
const CONNECTIONS = 16;

const base64Secret = () => `whsec_${randomBytes(24).toString("base64")}`;
const text = () => randomBytes(24).toString("hex");
const p256 = generateKeyPairSync("ec", { namedCurve: "P-256" });
const ed25519 = generateKeyPairSync("ed25519");
const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
const der = (key) => key.export({ type: "spki", format: "der" }).toString("base64");
const jwk = (key, member) => Buffer.from(key.export({ format: "jwk" })[member], "base64url").toString("hex");

// New for each run, as are the pairs of keys.
export const secrets = {
  stripe: `whsec_${text()}`,
  svix: base64Secret(),
  standardWebhooks: base64Secret(),
  paddle: `pdl_ntfset_${text()}`,
  twilio: text(),
  github: `${text()} with blanks and ünïcödé`,
  auth0: `Bearer ${text()}`,
  hubspot: text(),
  intercom: text(),
  lemonSqueezy: text(),
  linear: text(),
  mailgun: text(),
  shopify: text(),
  slack: text(),
  square: text(),
  typeform: text(),
  zendesk: text(),
};
export const keys = {
  sendgrid: { ...p256, publicText: der(p256.publicKey), send: jwk(p256.privateKey, "d") },
  discord: { ...ed25519, publicText: jwk(ed25519.publicKey, "x"), send: jwk(ed25519.privateKey, "d") },
  paddleClassic: {
    ...rsa,
    publicText: rsa.publicKey.export({ type: "spki", format: "pem" }),
    send: rsa.privateKey.export({ type: "pkcs8", format: "pem" }),
  },
};

const variable = (name) => name.replace(/[A-Z]/g, "_$&").toUpperCase();
const env = { ...process.env };
for (const [name, secret] of Object.entries(secrets)) env[`TEST_${variable(name)}_SECRET`] = secret;
for (const [name, key] of Object.entries(keys)) env[`TEST_${variable(name)}_PUBLIC_KEY`] = key.publicText;

const data = mkdtempSync(join(tmpdir(), "hookmill-sdk-"));
const agent = new Agent({ keepAlive: true, maxSockets: CONNECTIONS });
let server;
let address;
let interpreter;
const waiting = new Map();
let asked = 0;

before(async () => {
  server = spawn(binary, ["serve", "--log", "error", "--config", config, "--data", data, "--listen", "127.0.0.1:0"], {
    env,
    stdio: ["ignore", "ignore", "inherit"],
  });
  const listening = join(data, "listening");
  for (let tries = 0; tries < 500 && !address; tries++) {
    if (existsSync(listening)) {
      const found = readFileSync(listening, "utf8");
      if (await fetch(`http://${found}/healthz`).then((r) => r.ok, () => false)) address = found;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.ok(address, "the pipeline listens");
});

after(() => {
  agent.destroy();
  server.kill();
  interpreter?.stdin.end();
  rmSync(data, { recursive: true, force: true });
});

// The binary, its address, and its data.
export const running = () => ({ address, binary, data });

const STATUS = {
  missing_header: 401,
  malformed_header: 400,
  no_matching_signature: 401,
  timestamp_too_old: 401,
  timestamp_in_future: 401,
  malformed_event: 400,
};

// The verdict of the binary: "accepted", or the reason of the rejection. Not `fetch`, which joins repeated
// headers and respells URLs.
export function verdict(source, { method = "POST", query, headers, body }) {
  const [host, port] = address.split(":");
  const path = `/webhooks/${source}${query === undefined ? "" : `?${query}`}`;
  return new Promise((resolve, reject) => {
    const request = send({ agent, host, port, method, path, headers }, (response) => {
      const chunks = [];
      response.on("error", reject);
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("end", () => {
        if (response.statusCode < 300) return resolve("accepted");
        const answer = Buffer.concat(chunks).toString();
        try {
          const { reason } = JSON.parse(answer);
          assert.equal(response.statusCode, STATUS[reason], answer);
          resolve(reason);
        } catch (error) {
          reject(error);
        }
      });
    });
    request.on("error", reject);
    request.end(body);
  });
}

// Calls `run` with each number below `count`, as many at once as there are connections.
async function concurrently(count, run) {
  let next = 0;
  const worker = async () => {
    while (next < count) await run(next++);
  };
  await Promise.all(Array.from({ length: CONNECTIONS }, worker));
}

// Text that may cause errors in libraries: other scripts, emoji, combining marks, controls, separators of lines, nothing at all.
const ALPHABETS = ["", "abc XYZ 019", "äößé ñ ş", "日本語 한국어 العربية עברית", "😀👩‍👩‍👧‍👦🇵🇹", "e\u0301\u200d\u202e", "\n\r\t\"\\/\u2028\u2029", "\u0000\u001f\u007f", "&=+%;?#$'()*!~"];

export const pick = (list) => list[randomInt(list.length)];

export function randomText(longest) {
  const alphabet = [...pick(ALPHABETS)];
  const length = alphabet.length && randomInt(longest + 1);
  return Array.from({ length }, () => pick(alphabet)).join("");
}

export const randomId = () => randomBytes(randomInt(4, 20)).toString("hex");

// JSON with these members and others; with a padding of this many bytes.
export function randomJson(members, size) {
  const body = {
    ...members,
    object: { id: randomText(10), text: randomText(200), empty: "", nested: [{ a: randomText(20) }, null, 1.5e300] },
  };
  if (size) body.padding = randomText(1) + "é".repeat(size / 2);
  return JSON.stringify(body, null, pick([undefined, 2]));
}

export const now = () => Math.floor(Date.now() / 1000);

// A time within these limits of age and future.
export const around = (past, ahead) => now() + randomInt(-past, ahead + 1);

// Changes to a request. Each returns a copy.

export function bodyBit(request) {
  const body = Buffer.from(request.body);
  body[randomInt(body.length)] ^= 1 << randomInt(8);
  return { ...request, body };
}

export function bodyCut(request) {
  const body = Buffer.from(request.body);
  return { ...request, body: body.subarray(0, body.length - 1) };
}

function bodyStart(request) {
  const body = Buffer.from(request.body);
  body[0] ^= 1;
  return { ...request, body };
}

export function textBit(value) {
  for (;;) {
    const bytes = Buffer.from(value);
    bytes[randomInt(bytes.length)] ^= 1 << randomInt(7);
    // Only characters that a header or a URL may contain.
    if (/^[\x21-\x7e ]+$/.test(bytes) && !/^ | $/.test(bytes)) return bytes.toString();
  }
}

export const withHeaders = (request, headers) => ({ ...request, headers: { ...request.headers, ...headers } });

export const headerBit = (name) => (request) => withHeaders(request, { [name]: textBit(request.headers[name]) });

// Another number, near enough to be fresh still.
export const otherNumber = (value) => value.replace(/\d{10,}/, (number) => Number(number) + pick([-2, -1, 1, 2]));

export const headerTime = (name) => (request) => withHeaders(request, { [name]: otherNumber(request.headers[name]) });

const OF_A_CHANGE = ["no_matching_signature", "malformed_header", "malformed_event", "timestamp_too_old", "timestamp_in_future"];

// Runs the cross-check of a provider's library. It has
// - `name`, `source`: its name, and the source in hookmill.toml;
// - `request(size)`: a random request that is signed, with a body of about that size if one is given: headers, body and
//   maybe method and query;
// - `verifies(request)`: whether the library accepts it; an exception means no;
// - `changes`: by name, changes to a request that must invalidate its signature;
// - `lenient`: the changes that the library may overlook, and why; the binary may not;
// - `differences`: requests with different verdicts of the library and the binary, and why;
// - `samples`: [source, type] that `hookmill send` signs, with a body if there is no sample;
// - `secret`, `otherSecret`: their secrets;
// - `bodyUnsigned`: that the provider does not sign the body;
// - `python`: the differences of its Python library, if there is one: its `module` in python/verify.py, its `key`,
//   `url(request)`, and any of the above.
export function crossCheck({ python, ...own }) {
  check(own);
  if (python && process.env.HOOKMILL_TEST_PYTHON) {
    const verifies = (request) => askPython({ library: python.module, secret: python.key, url: python.url?.(request), request });
    check({ ...own, rounds: 300, lenient: {}, differences: [], ...python, name: `${own.name} for Python`, verifies });
  }
}

// One process verifies for all.
function askPython({ library, secret, url = "", request }) {
  if (!interpreter) {
    interpreter = spawn(process.env.HOOKMILL_TEST_PYTHON, [join(here, "python/verify.py")], { stdio: ["pipe", "pipe", "inherit"] });
    createInterface(interpreter.stdout).on("line", (line) => {
      const { n, valid } = JSON.parse(line);
      waiting.get(n)(valid);
      waiting.delete(n);
    });
    interpreter.on("exit", () => waiting.forEach((_, n) => waiting.get(n)(undefined)));
  }
  const n = ++asked;
  const answer = new Promise((resolve) => waiting.set(n, resolve));
  const body = Buffer.from(request.body).toString("base64");
  interpreter.stdin.write(`${JSON.stringify({ n, library, secret, url, headers: request.headers, body })}\n`);
  return answer.then((valid) => {
    assert.notEqual(valid, undefined, "python/verify.py has ended");
    return valid;
  });
}

function check(library) {
  const { name, source, rounds = 1000 } = library;
  const verifies = async (request) => {
    try {
      return (await library.verifies(request)) !== false;
    } catch {
      return false;
    }
  };
  const shown = (request) => JSON.stringify({ ...request, body: request.body.toString().slice(0, 300) });

  test(`${name}: ${rounds} random requests are accepted`, async () => {
    await concurrently(rounds, async (round) => {
      const request = await library.request(round % 50 === 49 ? randomInt(300 * 1024) : 0);
      assert.ok(await verifies(request), `the library refuses ${shown(request)}`);
      assert.equal(await verdict(source, request), "accepted", shown(request));
    });
  });

  for (const [what, change] of Object.entries(library.changes)) {
    test(`${name}: after a change (${what}) both reject`, async () => {
      await concurrently(rounds / 5, async () => {
        const request = change(await library.request(0));
        assert.ok(library.lenient?.[what] || !(await verifies(request)), `the library accepts ${shown(request)}`);
        const reason = await verdict(source, request);
        assert.ok(OF_A_CHANGE.includes(reason), `${reason}: ${shown(request)}`);
      });
    });
  }

  for (const { what, why, request, library: expected, binary } of library.differences ?? []) {
    test(`${name}: ${what}: the library ${expected ? "accepts" : "rejects"}, the binary says ${binary}: ${why}`, async () => {
      assert.notEqual(expected, binary === "accepted");
      const made = await request();
      assert.equal(await verifies(made), expected);
      assert.equal(await verdict(source, made), binary);
    });
  }

  for (const [source, type, body] of library.samples) {
    test(`${name}: hookmill send ${source} ${type} is verified`, async () => {
      const request = await sent(source, type, library.secret, body);
      assert.equal(request.path, `/webhooks/${source}`);
      assert.ok(await verifies(request), shown(request));
      if (!library.bodyUnsigned) assert.ok(!(await verifies(bodyStart(request))));
      assert.ok(!(await verifies(await sent(source, type, library.otherSecret, body))));
    });
  }
}

// The request of `hookmill send`: a sample, or a body.
async function sent(source, type, secret, body) {
  let resolve;
  const received = new Promise((r) => (resolve = r));
  const listener = createServer((request, response) => {
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => {
      response.end("{}");
      resolve({ headers: request.headers, body: Buffer.concat(chunks), path: request.url });
    });
  });
  await new Promise((r) => listener.listen(0, "127.0.0.1", r));
  const to = `http://127.0.0.1:${listener.address().port}`;
  const options = ["--secret-env", "SECRET_TO_SIGN_WITH", "--config", config, "--to", to];
  if (body !== undefined) {
    const file = join(data, "body");
    writeFileSync(file, body);
    options.push("--body", file);
  }
  const sender = spawn(binary, ["send", source, type, ...options], {
    stdio: ["ignore", "ignore", "inherit"],
    env: { ...process.env, SECRET_TO_SIGN_WITH: secret },
  });
  const code = await new Promise((r) => sender.on("exit", r));
  listener.close();
  // If it has failed, nothing may ever be received.
  assert.equal(code, 0);
  return received;
}
