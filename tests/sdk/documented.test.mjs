// Providers without a library: node:crypto signs, in code that shares nothing with Hookmill's. This is weaker than a library's
// verdict: if a documentation page is misread both here and in core/config/schemes, nothing fails.
import { createHmac, generateKeyPairSync, randomUUID, sign, verify } from "node:crypto";
import { around, bodyBit, bodyCut, crossCheck, headerBit, headerTime, keys, now, pick, randomId, randomJson, randomText, secrets, textBit, withHeaders } from "./support.mjs";

const hmac = (hash, secret, text, encoding) => createHmac(hash, secret).update(text).digest(encoding);
const concat = (...parts) => Buffer.concat(parts.map((part) => Buffer.from(part)));

// A provider with an HMAC in a header. `headers(body)` are the other headers; `text(request)` is the signed text.
function byHmac({ source, secret, header, hash = "sha256", encoding = "hex", prefix = "", body, headers = () => ({}), query = () => undefined, text = ({ body }) => body, changes = {}, samples, differences }) {
  const signature = (request, secret) => prefix + hmac(hash, secret, text(request), encoding);
  const signed = (body, by = secret, more) => {
    const request = { query: query(), headers: { ...headers(body), ...more }, body };
    return withHeaders(request, { [header]: signature(request, by) });
  };
  crossCheck({
    name: source,
    source,
    rounds: 200,
    secret,
    otherSecret: `${secret}0`,
    samples: samples.map((type) => [source, type]),
    request: (size) => signed(body(size)),
    verifies: (request) => request.headers[header] === signature(request, secret),
    changes: {
      "a bit of the body": bodyBit,
      "the end of the body": bodyCut,
      "a bit of the signature": headerBit(header),
      "another secret": ({ body }) => signed(body, `${secret}0`),
      ...changes,
    },
    differences: differences?.(signed, body),
  });
}

const tooOld = (header, at) => (signed, body) => [
  {
    what: "an old timestamp",
    why: "the signature itself is right",
    library: true,
    binary: "timestamp_too_old",
    request: () => signed(body(), undefined, { [header]: at }),
  },
];

// https://api.slack.com/authentication/verifying-requests-from-slack
byHmac({
  source: "slack",
  secret: secrets.slack,
  header: "x-slack-signature",
  prefix: "v0=",
  samples: ["event_callback.message"],
  body: (size) => randomJson({ event_id: `Ev${randomId()}`, type: "event_callback", event: { type: "message" } }, size),
  headers: () => ({ "x-slack-request-timestamp": String(around(240, 240)) }),
  text: ({ headers, body }) => concat("v0:", headers["x-slack-request-timestamp"], ":", body),
  changes: { "the timestamp": headerTime("x-slack-request-timestamp") },
  differences: tooOld("x-slack-request-timestamp", String(now() - 400)),
});

// https://shopify.dev/docs/apps/build/webhooks/subscribe/https
byHmac({
  source: "shopify",
  secret: secrets.shopify,
  header: "x-shopify-hmac-sha256",
  encoding: "base64",
  samples: ["orders/create"],
  body: (size) => randomJson({ id: 1 }, size),
  headers: () => ({ "x-shopify-topic": "orders/create", "x-shopify-event-id": randomUUID() }),
});

// https://linear.app/developers/webhooks: the time is in the body.
byHmac({
  source: "linear",
  secret: secrets.linear,
  header: "linear-signature",
  samples: ["Issue.create", "Issue.update"],
  body: (size) => randomJson({ type: "Issue", action: "create", webhookTimestamp: around(40, 40) * 1000 }, size),
  headers: () => ({ "linear-delivery": randomUUID() }),
  differences: (signed) => [
    {
      what: "an old timestamp",
      why: "the signature itself is right",
      library: true,
      binary: "timestamp_too_old",
      request: () => signed(JSON.stringify({ type: "Issue", action: "create", webhookTimestamp: Date.now() - 90_000 })),
    },
    {
      what: "a timestamp ahead",
      why: "the signature itself is right",
      library: true,
      binary: "timestamp_in_future",
      request: () => signed(JSON.stringify({ type: "Issue", action: "create", webhookTimestamp: Date.now() + 90_000 })),
    },
  ],
});

// https://developers.hubspot.com/docs/api/webhooks/validating-requests, version 3
byHmac({
  source: "hubspot",
  secret: secrets.hubspot,
  header: "x-hubspot-signature-v3",
  encoding: "base64",
  samples: ["contact.creation"],
  body: (size) => `[${randomJson({ eventId: 1, subscriptionId: 2, occurredAt: Date.now(), subscriptionType: "contact.creation" }, size)}]`,
  headers: () => ({ "x-hubspot-request-timestamp": String(around(240, 240) * 1000) }),
  query: () => pick([undefined, "", "a=b&c=d", `of=${encodeURIComponent(randomText(9))}`, "a=%3a%2F%3F&b=%40%21%24%27%28%29%2A%2C%3B%20%25"]),
  text({ query, headers, body }) {
    const decoded = query?.replace(/%(3A|2F|3F|40|21|24|27|28|29|2A|2C|3B)/gi, decodeURIComponent);
    const url = `https://hooks.example.com/webhooks/hubspot${query === undefined ? "" : `?${decoded}`}`;
    return concat("POST", url, body, headers["x-hubspot-request-timestamp"]);
  },
  changes: { "the timestamp": headerTime("x-hubspot-request-timestamp") },
  differences: tooOld("x-hubspot-request-timestamp", String((now() - 400) * 1000)),
});

// https://developers.intercom.com/docs/references/webhooks/webhook-models
byHmac({
  source: "intercom",
  secret: secrets.intercom,
  header: "x-hub-signature",
  hash: "sha1",
  prefix: "sha1=",
  samples: ["contact.user.created"],
  body: (size) => randomJson({ id: `notif_${randomId()}`, topic: "contact.user.created" }, size),
});

// https://docs.lemonsqueezy.com/help/webhooks/signing-requests
byHmac({
  source: "lemon-squeezy",
  secret: secrets.lemonSqueezy,
  header: "x-signature",
  samples: ["order_created"],
  body: (size) => randomJson({ meta: { event_name: "order_created" } }, size),
});

// https://developer.squareup.com/docs/webhooks/step3validate
byHmac({
  source: "square",
  secret: secrets.square,
  header: "x-square-hmacsha256-signature",
  encoding: "base64",
  samples: ["payment.updated"],
  body: (size) => randomJson({ event_id: randomId(), type: "payment.updated" }, size),
  text: ({ body }) => concat("https://hooks.example.com/webhooks/square", body),
});

// https://www.typeform.com/developers/webhooks/secure-your-webhooks/
byHmac({
  source: "typeform",
  secret: secrets.typeform,
  header: "typeform-signature",
  encoding: "base64",
  prefix: "sha256=",
  samples: ["form_response"],
  body: (size) => randomJson({ event_id: randomId(), event_type: "form_response" }, size),
});

// https://developer.zendesk.com/documentation/webhooks/verifying/
byHmac({
  source: "zendesk",
  secret: secrets.zendesk,
  header: "x-zendesk-webhook-signature",
  encoding: "base64",
  samples: ["zen:event-type:user.created"],
  body: (size) => randomJson({ type: "zen:event-type:user.created" }, size),
  headers: () => ({
    "x-zendesk-webhook-invocation-id": randomId(),
    "x-zendesk-webhook-signature-timestamp": new Date(around(240, 0) * 1000).toISOString(),
  }),
  text: ({ headers, body }) => concat(headers["x-zendesk-webhook-signature-timestamp"], body),
  changes: {
    "the timestamp": (request) =>
      withHeaders(request, { "x-zendesk-webhook-signature-timestamp": new Date((now() + 1) * 1000).toISOString().replace(".000", "") }),
  },
  differences: tooOld("x-zendesk-webhook-signature-timestamp", new Date((now() - 400) * 1000).toISOString()),
});

// https://docs.discord.com/developers/events/webhook-events: Ed25519 over time and body.
{
  const [SIGNATURE, TIMESTAMP] = ["x-signature-ed25519", "x-signature-timestamp"];
  const { privateKey, publicKey, send } = keys.discord;
  const signed = (body, at = String(now())) => ({
    headers: { [SIGNATURE]: sign(null, concat(at, body), privateKey).toString("hex"), [TIMESTAMP]: at },
    body,
  });
  crossCheck({
    name: "discord",
    source: "discord",
    rounds: 200,
    secret: send,
    otherSecret: `${send.slice(1)}${send[0]}`,
    samples: [["discord", "APPLICATION_AUTHORIZED"], ["discord", "ENTITLEMENT_CREATE"]],
    request: (size) => signed(randomJson({ type: 1, event: { type: "ENTITLEMENT_CREATE", timestamp: randomText(5) } }, size)),
    verifies: ({ headers, body }) =>
      verify(null, concat(headers[TIMESTAMP], body), publicKey, Buffer.from(headers[SIGNATURE], "hex")),
    changes: {
      "a bit of the body": bodyBit,
      "the end of the body": bodyCut,
      "a bit of the signature": headerBit(SIGNATURE),
      "the timestamp": headerTime(TIMESTAMP),
    },
    lenient: { "a bit of the signature": "Node reads hexadecimal in either case" },
    differences: [
      {
        what: "an old timestamp",
        why: "the signature itself is right",
        library: true,
        binary: "timestamp_too_old",
        request: () => signed(randomJson({ type: 1 }), String(now() - 2 * 3600)),
      },
      {
        what: "digits moved from the timestamp to the body",
        why: "the signature itself is right",
        library: true,
        binary: "malformed_header",
        request() {
          const { headers, body } = signed(randomJson({ type: 1 }));
          const at = headers[TIMESTAMP];
          return { headers: { ...headers, [TIMESTAMP]: at.slice(0, 7) }, body: at.slice(7) + body };
        },
      },
    ],
  });
}

// https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks: the signed values are in the body.
{
  const signature = ({ timestamp, token }) => hmac("sha256", secrets.mailgun, timestamp + token, "hex");
  const body = (part, size) => randomJson({ signature: part, "event-data": { id: randomId(), event: "delivered" } }, size);
  const parts = () => {
    const part = { timestamp: String(around(3600, 0)), token: randomId() };
    return { ...part, signature: signature(part) };
  };
  crossCheck({
    name: "mailgun",
    source: "mailgun",
    rounds: 200,
    secret: secrets.mailgun,
    otherSecret: `${secrets.mailgun}0`,
    samples: [["mailgun", "delivered"], ["mailgun", "failed"]],
    request: (size) => ({ headers: {}, body: body(parts(), size) }),
    verifies({ body }) {
      const part = JSON.parse(body).signature;
      return part.signature === signature(part);
    },
    changes: {
      "the end of the body": bodyCut,
      "the timestamp": () => ({ headers: {}, body: body({ ...parts(), timestamp: String(now() + 1) }) }),
      "the token": () => ({ headers: {}, body: body({ ...parts(), token: randomId() }) }),
      "the signature": () => ({ headers: {}, body: body({ ...parts(), signature: signature({ timestamp: "1", token: "" }) }) }),
    },
    differences: [
      {
        what: "digits moved from the token to the timestamp",
        why: "the signature itself is right",
        library: true,
        binary: "malformed_event",
        request() {
          const part = { timestamp: String(now()), token: `12${randomId()}` };
          const moved = { timestamp: `${part.timestamp}12`, token: part.token.slice(2) };
          return { headers: {}, body: body({ ...moved, signature: signature(part) }) };
        },
      },
    ],
  });
}

// https://developer.paddle.com/classic/reference/verifying-webhooks: RSA with SHA-1 over the form in the format of PHP's serialize.
{
  const { privateKey, publicKey, send } = keys.paddleClassic;
  const other = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey;
  const serialised = (fields) => {
    const text = (value) => `s:${Buffer.byteLength(value)}:"${value}";`;
    const names = [...fields.keys()].filter((name) => name !== "p_signature").sort();
    return `a:${names.length}:{${names.map((name) => text(name) + text(fields.get(name))).join("")}}`;
  };
  const headers = { "content-type": "application/x-www-form-urlencoded" };
  const fields = (size) => ({
    alert_id: randomId(),
    alert_name: "payment_succeeded",
    passthrough: size ? "é".repeat(size / 12) : randomText(40),
    empty: "",
    Upper: randomText(5),
  });
  const signed = (fields) => {
    const form = new URLSearchParams(fields);
    form.set("p_signature", sign("sha1", Buffer.from(serialised(form)), privateKey).toString("base64"));
    return { headers, body: form.toString() };
  };
  const changed = (change) => (request) => {
    const form = new URLSearchParams(request.body);
    change(form);
    return { headers, body: form.toString() };
  };
  crossCheck({
    name: "paddle-classic",
    source: "paddle-classic",
    rounds: 200,
    secret: send,
    otherSecret: other.export({ type: "pkcs8", format: "pem" }),
    samples: [["paddle-classic", "subscription_created"], ["paddle-classic", "subscription_payment_succeeded"]],
    request: (size) => signed(fields(size)),
    verifies({ body }) {
      const form = new URLSearchParams(body.toString());
      const signature = Buffer.from(form.get("p_signature"), "base64");
      return verify("sha1", Buffer.from(serialised(form)), publicKey, signature);
    },
    changes: {
      "a value": changed((form) => form.set("alert_id", `${form.get("alert_id")}0`)),
      "a field more": changed((form) => form.set("more", "")),
      "a field less": changed((form) => form.delete("empty")),
      "the signature": changed((form) => form.set("p_signature", textBit(form.get("p_signature")))),
    },
    lenient: { "the signature": "Node reads base64 without its end, or with more after it" },
  });
}

// https://auth0.com/docs/customize/log-streams/custom-log-streams: nothing is signed; the request contains a token.
crossCheck({
  name: "auth0",
  source: "auth0",
  rounds: 200,
  secret: secrets.auth0,
  otherSecret: `${secrets.auth0}0`,
  samples: [["auth0", "s"], ["auth0", "ss"]],
  bodyUnsigned: true,
  request(size) {
    const all = Array.from({ length: 1 + pick([0, 1, 2]) }, () => JSON.stringify(JSON.parse(randomJson({ log_id: randomId(), data: { type: "s" } }, size && size / 3))));
    return { headers: { authorization: secrets.auth0 }, body: all.join("\n") };
  },
  verifies: ({ headers }) => headers.authorization === secrets.auth0,
  changes: { "a bit of the token": headerBit("authorization") },
});
