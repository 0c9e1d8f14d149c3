// SendGrid's library verifies ECDSA signatures of the event webhook.
import { sign } from "node:crypto";
import { EventWebhook, EventWebhookHeader } from "@sendgrid/eventwebhook";
import { around, bodyBit, bodyCut, crossCheck, headerBit, headerTime, keys, now, randomId, randomJson, withHeaders } from "./support.mjs";

const [SIGNATURE, TIMESTAMP] = [EventWebhookHeader.SIGNATURE(), EventWebhookHeader.TIMESTAMP()].map((name) => name.toLowerCase());
const { privateKey, publicText, send } = keys.sendgrid;
const webhook = new EventWebhook();
const publicKey = webhook.convertPublicKeyToECDSA(publicText);

const signature = (at, body, dsaEncoding = "der") =>
  sign("sha256", Buffer.concat([Buffer.from(String(at)), Buffer.from(body)]), { key: privateKey, dsaEncoding }).toString("base64");
const signed = (body, at = now()) => ({ headers: { [SIGNATURE]: signature(at, body), [TIMESTAMP]: String(at) }, body });

function respelled(spell) {
  const request = signed(events());
  const der = spell(Buffer.from(request.headers[SIGNATURE], "base64"));
  return withHeaders(request, { [SIGNATURE]: Buffer.from(der).toString("base64") });
}

// SendGrid ends its lines with CRLF.
function events(size) {
  const count = Math.floor(Math.random() * 5);
  const all = Array.from({ length: count }, () => randomJson({ sg_event_id: randomId(), event: "open" }, size && size / count));
  return `[${all.join(",\r\n")}]\r\n`;
}

crossCheck({
  name: "@sendgrid/eventwebhook",
  source: "sendgrid",
  secret: send,
  otherSecret: `${send.slice(1)}${send[0]}`,
  samples: [["sendgrid", "delivered"], ["sendgrid", "bounce"]],
  request: (size) => signed(events(size), around(23 * 3600, 240)),
  verifies: ({ headers, body }) => webhook.verifySignature(publicKey, Buffer.from(body), headers[SIGNATURE], headers[TIMESTAMP]),
  changes: {
    "a bit of the body": bodyBit,
    "the line end of the body": bodyCut,
    "the timestamp": headerTime(TIMESTAMP),
    "a nought before the timestamp": (request) => withHeaders(request, { [TIMESTAMP]: `0${request.headers[TIMESTAMP]}` }),
    "a bit of the signature": headerBit(SIGNATURE),
    "a signature that is not DER": ({ body }) => {
      const at = now();
      return { headers: { [SIGNATURE]: signature(at, body, "ieee-p1363"), [TIMESTAMP]: String(at) }, body };
    },
  },
  lenient: { "a bit of the signature": "it skips what is no base64, and takes DER with lengths that are too long" },
  differences: [
    {
      what: "a signature in DER with a length beyond its end",
      why: "the library takes what there is",
      library: true,
      binary: "no_matching_signature",
      request: () => respelled((der) => der.with(1, der[1] + 1)),
    },
    {
      what: "a base64 signature with an invalid character",
      why: "the library skips it",
      library: true,
      binary: "no_matching_signature",
      request() {
        const request = signed(events());
        return withHeaders(request, { [SIGNATURE]: `!${request.headers[SIGNATURE]}` });
      },
    },
    {
      what: "older than a day",
      why: "the library does not look at the age",
      library: true,
      binary: "timestamp_too_old",
      request: () => signed(events(), now() - 25 * 3600),
    },
    {
      what: "a timestamp ahead",
      why: "the library does not look at the age",
      library: true,
      binary: "timestamp_in_future",
      request: () => signed(events(), now() + 400),
    },
    {
      what: "a timestamp that is no number",
      why: "the library signs whatever it is",
      library: true,
      binary: "malformed_header",
      request: () => signed(events(), "today"),
    },
    {
      what: "a body that is no JSON",
      why: "the library looks at the signature only",
      library: true,
      binary: "malformed_event",
      request: () => signed("no JSON"),
    },
    {
      what: "bytes that are not UTF-8",
      why: "the library decodes them to the text that was signed",
      library: true,
      binary: "no_matching_signature",
      request: () => ({ ...signed('[{"a":"\ufffd"}]'), body: Buffer.from('[{"a":"\xff"}]', "latin1") }),
    },
  ],
  python: {
    module: "sendgrid",
    key: publicText,
    lenient: { "a bit of the signature": "it takes base64 whose last bits are not zero" },
  },
});
