// Paddle's library verifies what is signed by the text of https://developer.paddle.com/webhooks/signature-verification.
import { createHmac } from "node:crypto";
import { Paddle } from "@paddle/paddle-node-sdk";
import { around, bodyBit, bodyCut, crossCheck, headerBit, now, otherNumber, randomId, randomJson, secrets, withHeaders } from "./support.mjs";

const HEADER = "paddle-signature";
const paddle = new Paddle("unused");

const hmac = (text, secret = secrets.paddle) => createHmac("sha256", secret).update(text).digest("hex");
const event = (size) => randomJson({ event_id: `evt_${randomId()}`, event_type: "test.unheard_of", data: {} }, size);

// `header` is made of the time and the signature.
function signed(body, { at = now(), secret, header = (ts, h1) => `ts=${ts};h1=${h1}` } = {}) {
  return { headers: { [HEADER]: header(at, hmac(`${at}:${body}`, secret)) }, body };
}

const slow = {
  what: "15 seconds old",
  why: "the library takes 5 seconds, which a clock that is a little off exceeds; we take 30",
  library: false,
  binary: "accepted",
  request: () => signed(event(), { at: now() - 15 }),
};

crossCheck({
  name: "paddle",
  source: "paddle",
  secret: secrets.paddle,
  otherSecret: `${secrets.paddle}0`,
  samples: [["paddle", "subscription.created"], ["paddle", "transaction.completed"], ["paddle", "customer.updated"]],
  request: (size) => signed(event(size), { at: around(2, 60) }),
  async verifies({ headers, body }) {
    await paddle.webhooks.unmarshal(body.toString(), secrets.paddle, headers[HEADER]);
  },
  changes: {
    "a bit of the body": bodyBit,
    "the end of the body": bodyCut,
    "a bit of the header": headerBit(HEADER),
    "the timestamp": (request) => withHeaders(request, { [HEADER]: otherNumber(request.headers[HEADER]) }),
    "an old timestamp": ({ body }) => signed(body, { at: now() - 60 }),
    "another secret": ({ body }) => signed(body, { secret: `${secrets.paddle}0` }),
    "no event": (request) => signed(request.body.slice(1)),
    "an empty body": () => signed(""),
  },
  differences: [
    slow,
    {
      what: "signed with the secret before a rotation and the one after it, ours first",
      why: "the library looks at the last only",
      library: false,
      binary: "accepted",
      request: () => signed(event(), { header: (ts, h1) => `ts=${ts};h1=${h1};h1=${hmac("another")}` }),
    },
    {
      what: "JSON without an id",
      why: "the library looks at the signature only",
      library: true,
      binary: "malformed_event",
      request: () => signed('{"data":{}}'),
    },
    {
      what: "bytes that are not UTF-8",
      why: "the library's caller has to decode them to a text first",
      library: true,
      binary: "no_matching_signature",
      request() {
        const [text, bytes] = ["\ufffd", "\xff"].map((text) => `{"event_id":"e","event_type":"a","data":{"a":"${text}"}}`);
        return { ...signed(text), body: Buffer.from(bytes, "latin1") };
      },
    },
    {
      what: "letters after the timestamp",
      why: "the library reads the digits before them",
      library: true,
      binary: "malformed_header",
      request: () => signed(event(), { header: (ts, h1) => `ts=${ts}abc;h1=${h1}` }),
    },
    {
      what: "two timestamps, with the last one signed",
      why: "the library takes the last, others the first",
      library: true,
      binary: "malformed_header",
      request: () => signed(event(), { header: (ts, h1) => `ts=1;ts=${ts};h1=${h1}` }),
    },
    {
      what: "an equals sign and more after the signature",
      why: "the library cuts it off",
      library: true,
      binary: "no_matching_signature",
      request: () => signed(event(), { header: (ts, h1) => `ts=${ts};h1=${h1}=more` }),
    },
  ],
  python: {
    module: "paddle",
    key: secrets.paddle,
    lenient: { "no event": "it looks at the signature only", "an empty body": "likewise" },
    // It accepts 5 seconds either way.
    request: (size) => signed(event(size), { at: around(2, 2) }),
    differences: [slow],
  },
});
