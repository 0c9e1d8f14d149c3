// Stripe's library signs and verifies.
import { createHmac } from "node:crypto";
import Stripe from "stripe";
import { around, bodyBit, bodyCut, crossCheck, headerBit, now, otherNumber, randomId, randomJson, secrets, withHeaders } from "./support.mjs";

const HEADER = "stripe-signature";
const stripe = new Stripe("sk_test_unused");

const sign = (payload, timestamp = now(), secret = secrets.stripe) =>
  stripe.webhooks.generateTestHeaderString({ payload, secret, timestamp });
const signed = (body, timestamp) => ({ headers: { [HEADER]: sign(body, timestamp) }, body });
const event = (size) => randomJson({ id: `evt_${randomId()}`, type: "test.unheard_of", created: now() }, size);

// A custom header, whose time need not be a number.
function byHand(timestamp, header = (signature) => `t=${timestamp},v1=${signature}`) {
  const body = event();
  const signature = createHmac("sha256", secrets.stripe).update(`${now()}.${body}`).digest("hex");
  return { headers: { [HEADER]: header(signature) }, body };
}

crossCheck({
  name: "stripe",
  source: "stripe",
  secret: secrets.stripe,
  otherSecret: `${secrets.stripe}0`,
  samples: [["stripe", "customer.subscription.updated"], ["stripe", "invoice.paid"]],
  request: (size) => signed(event(size), around(200, 100)),
  verifies: ({ headers, body }) => void stripe.webhooks.constructEvent(Buffer.from(body), headers[HEADER], secrets.stripe),
  changes: {
    "a bit of the body": bodyBit,
    "the end of the body": bodyCut,
    "a bit of the header": headerBit(HEADER),
    "the timestamp": (request) => withHeaders(request, { [HEADER]: otherNumber(request.headers[HEADER]) }),
    "an old timestamp": ({ body }) => signed(body, now() - 330),
    "another secret": ({ body }) => ({ headers: { [HEADER]: sign(body, now(), `${secrets.stripe}0`) }, body }),
    "v0 for v1": (request) => withHeaders(request, { [HEADER]: request.headers[HEADER].replace("v1=", "v0=") }),
    "no event": (request) => signed(request.body.slice(1)),
    "an empty body": () => signed(""),
  },
  differences: [
    {
      what: "a thin event",
      why: "the library parses it with another method",
      library: false,
      binary: "accepted",
      request: () => signed(JSON.stringify({ id: "evt_1", object: "v2.core.event", type: "v1.billing.meter.error" })),
    },
    {
      what: "JSON without an id",
      why: "the library looks at the signature only",
      library: true,
      binary: "malformed_event",
      request: () => signed("{}"),
    },
    {
      what: "bytes that are not UTF-8",
      why: "the library decodes them to the text that was signed",
      library: true,
      binary: "no_matching_signature",
      request() {
        const body = JSON.stringify({ id: "evt_1", type: "a", text: "\ufffd" });
        return { ...signed(body), body: Buffer.from(body.replace("\ufffd", "\u0001"), "latin1").map((b) => (b === 1 ? 0xff : b)) };
      },
    },
    {
      what: "a byte order mark that was not signed",
      why: "the library drops it when it decodes",
      library: true,
      binary: "no_matching_signature",
      request() {
        const request = signed(event());
        return { ...request, body: Buffer.concat([Buffer.from("\ufeff"), Buffer.from(request.body)]) };
      },
    },
    {
      what: "letters after the timestamp",
      why: "the library reads the digits before them",
      library: true,
      binary: "malformed_header",
      request: () => byHand(`${now()}abc`),
    },
    {
      what: "a timestamp with a leading nought",
      why: "the library writes the number anew before it hashes",
      library: true,
      binary: "malformed_header",
      request: () => byHand(`0${now()}`),
    },
    {
      what: "a timestamp ahead",
      why: "the library looks at the past only",
      library: true,
      binary: "timestamp_in_future",
      request: () => signed(event(), now() + 400),
    },
    {
      what: "two timestamps, with the last one signed",
      why: "the library takes the last, others the first",
      library: true,
      binary: "malformed_header",
      request: () => byHand(now(), (signature) => `t=1,t=${now()},v1=${signature}`),
    },
    {
      what: "too many signatures",
      why: "each costs a comparison, and a sender has two secrets at most",
      library: true,
      binary: "malformed_header",
      request: () => byHand(now(), (signature) => `t=${now()}${",v1=00".repeat(8)},v1=${signature}`),
    },
  ],
  python: {
    module: "stripe",
    key: secrets.stripe,
    differences: [
      {
        what: "two timestamps, with the first one signed",
        why: "the library takes the first, others the last",
        library: true,
        binary: "malformed_header",
        request: () => byHand(now(), (signature) => `t=${now()},t=1,v1=${signature}`),
      },
    ],
  },
});
