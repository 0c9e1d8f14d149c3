// Standard Webhooks: the library of Svix, which senders such as Clerk and Resend use, and that of the standard.
import { randomBytes } from "node:crypto";
import { Webhook as StandardWebhook } from "standardwebhooks";
import { Webhook as SvixWebhook } from "svix";
import { around, bodyBit, bodyCut, crossCheck, headerBit, headerTime, now, randomId, randomJson, secrets, withHeaders } from "./support.mjs";

const otherSecret = `whsec_${randomBytes(24).toString("base64")}`;

function check({ name, source, secret, samples, Webhook, family, differences }) {
  const webhook = new Webhook(secret);
  const [id, timestamp, signature] = ["id", "timestamp", "signature"].map((part) => `${family}-${part}`);
  const event = (size) => randomJson({ type: "test.unheard_of" }, size);
  function signed(body, { at = now(), as = `msg_${randomId()}`, by = webhook } = {}) {
    const date = new Date(at * 1000);
    return { headers: { [id]: as, [timestamp]: String(at), [signature]: by.sign(as, date, body) }, body };
  }
  const spelled = (spell) => {
    const request = signed(event());
    return withHeaders(request, { [signature]: spell(request.headers[signature]) });
  };
  crossCheck({
    name,
    source,
    secret,
    otherSecret,
    samples,
    request: (size) => signed(event(size), { at: around(240, 240) }),
    verifies: ({ headers, body }) => void webhook.verify(Buffer.from(body), headers),
    changes: {
      "a bit of the body": bodyBit,
      "the end of the body": bodyCut,
      "a bit of the signature": headerBit(signature),
      "a bit of the id": headerBit(id),
      "the timestamp": headerTime(timestamp),
      "an old timestamp": ({ body }) => signed(body, { at: now() - 330 }),
      "a timestamp ahead": ({ body }) => signed(body, { at: now() + 330 }),
      "another secret": ({ body }) => signed(body, { by: new Webhook(otherSecret) }),
      "another version": (request) => withHeaders(request, { [signature]: request.headers[signature].replace("v1,", "v2,") }),
    },
    python: {
      module: name,
      lenient: { "a bit of the signature": "it takes base64 whose last bits are not zero" },
      key: secret,
      differences: [
        {
          what: "two blanks between signatures",
          why: "the library cannot read that, and there is no harm in it",
          library: false,
          binary: "accepted",
          request: () => spelled((good) => `v1,AAAA  ${good}`),
        },
      ],
    },
    differences: [
      {
        what: "an empty body",
        why: "the library looks at the signature only",
        library: true,
        binary: "malformed_event",
        request: () => signed(""),
      },
      {
        what: "bytes that are not UTF-8",
        why: "the library decodes them to the text that was signed",
        library: true,
        binary: "no_matching_signature",
        request: () => ({ ...signed('{"type":"a","b":"\ufffd"}'), body: Buffer.from('{"type":"a","b":"\xff"}', "latin1") }),
      },
      {
        what: "letters after the timestamp",
        why: "the library reads the digits before them",
        library: true,
        binary: "malformed_header",
        request() {
          const request = signed(event());
          return withHeaders(request, { [timestamp]: `${request.headers[timestamp]}abc` });
        },
      },
      {
        what: "a timestamp with a leading nought",
        why: "the library writes the number anew before it hashes; a signed time has ten digits here",
        library: true,
        binary: "malformed_header",
        request() {
          const request = signed(event());
          return withHeaders(request, { [timestamp]: `0${request.headers[timestamp]}` });
        },
      },
      {
        what: "a comma and more after the signature",
        why: "the library cuts it off",
        library: true,
        binary: "no_matching_signature",
        request: () => spelled((good) => `${good},more`),
      },
      {
        what: "two headers joined by a proxy",
        why: "a forged one would pass beside a good one",
        library: true,
        binary: "malformed_header",
        request: () => spelled((good) => `v1,AAAA, ${good}`),
      },
      {
        what: "too many signatures",
        why: "each costs a comparison",
        library: true,
        binary: "malformed_header",
        request: () => spelled((good) => `${"v1,AAAA ".repeat(8)}${good}`),
      },
      ...differences(signed, event),
    ],
  });
}

const renamed = (headers, from, to) =>
  Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.replace(from, to), value]));

check({
  name: "svix",
  source: "svix",
  secret: secrets.svix,
  samples: [["clerk", "user.created"], ["resend", "email.delivered"]],
  Webhook: SvixWebhook,
  family: "svix",
  differences: (signed, event) => [
    {
      what: "a signed body that is no JSON",
      why: "the library looks at the signature only",
      library: true,
      binary: "malformed_event",
      request: () => signed("no JSON"),
    },
    {
      what: "an id of one family, the rest of the other",
      why: "the library takes each header by itself, and a sender uses one family",
      library: true,
      binary: "missing_header",
      request() {
        const request = signed(event());
        const { "svix-id": id, ...rest } = request.headers;
        return { ...request, headers: { ...renamed(rest, "svix-", "webhook-"), "svix-id": id } };
      },
    },
  ],
});

check({
  name: "standardwebhooks",
  source: "standard-webhooks",
  secret: secrets.standardWebhooks,
  samples: [["supabase", "hook", '{"user":{"id":"1"},"email_data":{"token":"ü"}}']],
  Webhook: StandardWebhook,
  family: "webhook",
  differences: (signed, event) => [
    {
      what: "headers that begin with svix-",
      why: "the scheme takes either family unless `families` says otherwise",
      library: false,
      binary: "accepted",
      request() {
        const request = signed(event());
        return { ...request, headers: renamed(request.headers, "webhook-", "svix-") };
      },
    },
  ],
});
