// The providers' own libraries against ours: they sign and the running binary verifies; `hookmill send` signs and they
// verify. Run by `cargo xtask test sdk`.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes, randomInt } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import Stripe from "stripe";
import { Webhook } from "svix";

const tests = dirname(dirname(fileURLToPath(import.meta.url)));
const binary = process.env.HOOKMILL_TEST_BINARY;
const stripeSecret = `whsec_${randomBytes(24).toString("hex")}`;
const clerkSecret = `whsec_${randomBytes(24).toString("base64")}`;
const env = { ...process.env, TEST_STRIPE_SECRET: stripeSecret, TEST_CLERK_SECRET: clerkSecret };
const config = join(tests, "hookmill.toml");
const stripe = new Stripe("sk_test_unused");
const svix = new Webhook(clerkSecret);

const data = mkdtempSync(join(tmpdir(), "hookmill-sdk-"));
let server;
let url;

before(async () => {
  server = spawn(binary, ["serve", "--log", "error", "--config", config, "--data", data, "--listen", "127.0.0.1:0"], {
    env,
    stdio: ["ignore", "ignore", "inherit"],
  });
  const listening = join(data, "listening");
  for (let tries = 0; tries < 500 && !url; tries++) {
    if (existsSync(listening)) {
      const address = readFileSync(listening, "utf8");
      if (await fetch(`http://${address}/healthz`).then((r) => r.ok, () => false)) url = `http://${address}`;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.ok(url, "the pipeline listens");
});

after(() => {
  server.kill();
  rmSync(data, { recursive: true, force: true });
});

// Text that libraries trip over: other scripts, emoji, combining marks, controls, separators of lines, nothing at all.
const ALPHABETS = ["", "abc XYZ 019", "äößé ñ ş", "日本語 한국어 العربية עברית", "😀👩‍👩‍👧‍👦🇵🇹", "e\u0301\u200d\u202e", "\n\r\t\"\\/\u2028\u2029", "\u0000\u001f\u007f"];

function randomText(longest) {
  const alphabet = [...ALPHABETS[randomInt(ALPHABETS.length)]];
  const length = alphabet.length && randomInt(longest + 1);
  return Array.from({ length }, () => alphabet[randomInt(alphabet.length)]).join("");
}

function randomBody(id, size) {
  const body = {
    id,
    type: "test.unheard_of",
    created: randomInt(2 ** 31),
    data: { object: { id: randomText(10), text: randomText(200), empty: "", nested: [{ a: randomText(20) }, null, 1.5e300] } },
  };
  if (size) body.padding = randomText(1) + "é".repeat(size / 2);
  return JSON.stringify(body, null, randomInt(2) ? undefined : 2);
}

const post = (source, headers, body) => fetch(`${url}/webhooks/${source}`, { method: "POST", headers, body });

async function verdict(source, headers, body) {
  const response = await post(source, headers, body);
  return response.ok ? "accepted" : (await response.json()).reason;
}

const signers = {
  stripe: (id, body) => ({
    "stripe-signature": stripe.webhooks.generateTestHeaderString({ payload: body, secret: stripeSecret }),
  }),
  clerk: (id, body) => {
    const now = new Date();
    return {
      "svix-id": id,
      "svix-timestamp": String(Math.floor(now / 1000)),
      "svix-signature": svix.sign(id, now, body),
    };
  },
};

for (const [source, sign] of Object.entries(signers)) {
  test(`${source}: what its library signs is accepted, and refused after any byte has changed`, async () => {
    for (let round = 0; round < 300; round++) {
      const id = `evt_${source}_${round}_${randomBytes(6).toString("hex")}`;
      const body = randomBody(id, round % 50 === 0 ? 300 * 1024 : 0);
      const headers = sign(id, body);
      assert.equal(await verdict(source, headers, body), "accepted", body.slice(0, 300));

      const bytes = Buffer.from(body);
      bytes[randomInt(bytes.length)] ^= 1 << randomInt(8);
      assert.equal(await verdict(source, headers, bytes), "no_matching_signature");
    }
  });

  test(`${source}: a signature over nothing, or over what is no event, holds; only the event does not`, async () => {
    for (const body of ["", "{}", "\u0000", "😀", '{"type":""}']) {
      assert.equal(await verdict(source, sign("evt_empty", body), body), "malformed_event", JSON.stringify(body));
    }
  });

  test(`${source}: another secret's signature is refused`, async () => {
    const body = randomBody("evt_other");
    const headers =
      source === "stripe"
        ? { "stripe-signature": stripe.webhooks.generateTestHeaderString({ payload: body, secret: "whsec_other" }) }
        : {
            ...sign("evt_other", body),
            "svix-signature": new Webhook(`whsec_${randomBytes(24).toString("base64")}`).sign("evt_other", new Date(), body),
          };
    assert.equal(await verdict(source, headers, body), "no_matching_signature");
  });
}

// What `hookmill send` posts, as (headers, body).
async function sent(source, event) {
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
  const sender = spawn(binary, ["send", source, event, "--config", config, "--to", to], { env, stdio: "inherit" });
  const request = await received;
  assert.equal(await new Promise((r) => sender.on("exit", r)), 0);
  listener.close();
  return request;
}

test("stripe: what hookmill sends, its library verifies", async () => {
  const { headers, body, path } = await sent("stripe", "customer.subscription.updated");
  const event = stripe.webhooks.constructEvent(body, headers["stripe-signature"], stripeSecret);
  assert.equal(event.type, "customer.subscription.updated");
  assert.equal(event.data.object.object, "subscription");
  assert.equal(path, "/webhooks/stripe");
});

test("clerk: what hookmill sends, its library verifies", async () => {
  const { headers, body } = await sent("clerk", "user.created");
  svix.verify(body, headers);
  assert.equal(JSON.parse(body).data.object, "user");
});
