// Twilio's library signs and verifies: forms, requests without a body, and JSON.
import { createHash, createHmac } from "node:crypto";
import { parse } from "node:querystring";
import twilio from "twilio";
import { bodyBit, bodyCut, crossCheck, headerBit, pick, randomId, randomJson, randomText, secrets, withHeaders } from "./support.mjs";

const HEADER = "x-twilio-signature";
const FORM = "application/x-www-form-urlencoded";
const PUBLIC_URL = "https://hooks.example.com/webhooks/twilio";

const url = (query) => (query === undefined ? PUBLIC_URL : `${PUBLIC_URL}?${query}`);
const sign = (query, fields, secret = secrets.twilio) => twilio.getExpectedTwilioSignature(secret, url(query), fields);

// A field with several values has an array.
function encode(fields) {
  const pairs = Object.entries(fields).flatMap(([name, values]) => [values].flat().map((value) => [name, value]));
  const percent = (text) => encodeURIComponent(text).replaceAll("%20", pick(["+", "%20"]));
  return pairs.map(([name, value]) => `${percent(name)}=${percent(value)}`).join("&");
}

function form(fields, { query, secret, type = FORM, body = encode(fields) } = {}) {
  return { query, headers: { "content-type": type, [HEADER]: sign(query, fields, secret) }, body };
}

function json(body) {
  const query = `bodySHA256=${createHash("sha256").update(body).digest("hex")}`;
  return { query, headers: { "content-type": "application/json", [HEADER]: sign(query, {}) }, body };
}

function get(fields) {
  const query = encode(fields);
  return { method: "GET", query, headers: { [HEADER]: sign(query, {}) }, body: "" };
}

function randomFields(size) {
  const fields = pick([{ MessageSid: `SM${randomId()}`, MessageStatus: "sent" }, { CallSid: `CA${randomId()}` }, {}]);
  for (let count = Math.floor(Math.random() * 12); count > 0; count--) {
    const name = pick(["Body", "To", "a", "A", "aa", "", randomText(5)]);
    fields[name] = pick([randomText(40), "", [randomText(3), randomText(3), "", "x"], ["same", "same"]]);
  }
  if (size) fields.Body = "é".repeat(size / 12);
  return fields;
}

function request(size) {
  const kind = pick(["form", "form", "form", "form with a query", "GET", "JSON"]);
  if (kind === "JSON") return json(`[${randomJson({ id: randomId(), type: "com.twilio.test" }, size)}]`);
  if (kind === "GET") return get({ ...randomFields(), n: randomId() });
  const query = kind === "form" ? undefined : pick(["a=b", "q=%C3%BC&b=1%202", "", "x&y==z", "n=it's+here"]);
  return form(randomFields(size), { query, type: pick([FORM, `${FORM}; charset=UTF-8`]) });
}

// The signed text of a form, which is equal for two spellings of the form.
function meaning(body) {
  const fields = new URLSearchParams(body.toString());
  const names = [...new Set(fields.keys())].sort();
  return JSON.stringify(names.map((name) => [name, [...new Set(fields.getAll(name))].sort()]));
}

function formBit() {
  const original = form({ ...randomFields(), Body: `${randomText(40)}.` });
  for (;;) {
    const changed = bodyBit(original);
    if (meaning(changed.body) !== meaning(original.body)) return changed;
  }
}

const withHash = (query, body) => `${query}&bodySHA256=${createHash("sha256").update(body).digest("hex")}`;

crossCheck({
  name: "twilio",
  source: "twilio",
  secret: secrets.twilio,
  otherSecret: `${secrets.twilio}0`,
  samples: ["message.sent", "message.delivered", "message.received", "call.completed"].map((type) => ["twilio", type]),
  request,
  // As its middleware calls it, with a form parsed by Express.
  verifies: ({ method, query, headers, body }) =>
    twilio.validateIncomingRequest(
      {
        header: (name) => headers[name.toLowerCase()],
        body: method !== "GET" && headers["content-type"].startsWith(FORM) ? parse(body.toString(), "&", "=", { maxKeys: 0 }) : {},
        rawBody: body,
      },
      secrets.twilio,
      { url: url(query) },
    ),
  changes: {
    "a bit of a form": formBit,
    "a bit of JSON": () => bodyBit(json('[{"id":"1","type":"a"}]')),
    "the end of JSON": () => bodyCut(json('[{"id":"1","type":"a"}]')),
    "a bit of the signature": headerBit(HEADER),
    "a field more": () => {
      const made = form(randomFields());
      return { ...made, body: `${made.body}&more=1` };
    },
    "an empty field less": () => ({ ...form({ a: "1", b: "" }), body: "a=1" }),
    "a query more": () => ({ ...form(randomFields()), query: "a=1" }),
    "a letter of the query": () => ({ ...get({ a: randomId(), b: "c" }), query: "a=1&b=C" }),
    "another secret": () => form(randomFields(), { secret: `${secrets.twilio}0` }),
  },
  differences: [
    {
      what: "JSON that nothing covers",
      why: "without bodySHA256 only the URL is signed",
      library: true,
      binary: "no_matching_signature",
      request: () => ({ ...form({}), headers: { "content-type": "application/json", [HEADER]: sign(undefined, {}) }, body: "[]" }),
    },
    {
      what: "a form that is signed as one, with bodySHA256 in the URL",
      why: "the library then looks at the hash only; the signature covers every field all the same",
      library: false,
      binary: "accepted",
      request() {
        const body = "MessageSid=SM1";
        return form({ MessageSid: "SM1" }, { query: withHash("a=1", body), body });
      },
    },
    {
      what: "a form with only its hash signed",
      why: "Twilio documents bodySHA256 for JSON only",
      library: true,
      binary: "no_matching_signature",
      request() {
        const body = "MessageSid=SM1";
        const query = withHash("a=1", body);
        return withHeaders(form({}, { query, body }), { [HEADER]: sign(query, {}) });
      },
    },
    {
      what: "a shared key, HMAC-SHA256",
      why: "the library does not know the header that names the algorithm",
      library: false,
      binary: "accepted",
      request() {
        const made = form({ MessageSid: "SM1" });
        const signature = createHmac("sha256", secrets.twilio).update(`${PUBLIC_URL}MessageSidSM1`).digest("base64");
        return withHeaders(made, { [HEADER]: signature, "x-twilio-webhooks-signature-settings": "key=WK1,algorithm=HMAC_SHA256" });
      },
    },
    {
      what: "names beyond the Basic Multilingual Plane",
      why: "the library sorts by UTF-16, we and Twilio's library for Python by code points; Twilio's names are ASCII",
      library: true,
      binary: "no_matching_signature",
      request: () => form({ "\uff21": "1", "😀": "2" }),
    },
    {
      what: "bytes that are not UTF-8",
      why: "Express decodes them to the text that was signed",
      library: true,
      binary: "malformed_event",
      request: () => form({ a: "\ufffd" }, { body: "a=%FF" }),
    },
  ],
  python: {
    module: "twilio",
    key: secrets.twilio,
    url: ({ query }) => url(query),
    request(size) {
      for (;;) {
        const made = request(size);
        if (made.query !== "") return made;
      }
    },
    differences: [
      {
        what: "a question mark with nothing behind it",
        why: "the library takes the URL apart and loses it; it was signed",
        library: false,
        binary: "accepted",
        request: () => form({ a: "1" }, { query: "" }),
      },
    ],
  },
});
