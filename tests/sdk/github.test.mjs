// The library of GitHub's Octokit signs and verifies.
import { randomUUID } from "node:crypto";
import { sign, verify } from "@octokit/webhooks-methods";
import { bodyBit, bodyCut, crossCheck, headerBit, pick, randomJson, randomText, secrets, withHeaders } from "./support.mjs";

const HEADER = "x-hub-signature-256";

async function signed(body, secret = secrets.github) {
  const headers = {
    "x-github-delivery": randomUUID(),
    "x-github-event": pick(["push", "issues", "pull_request"]),
    [HEADER]: await sign(secret, body),
  };
  return { headers, body };
}
const event = (size) => randomJson(pick([{ action: "opened" }, { ref: randomText(20) }]), size);

crossCheck({
  name: "@octokit/webhooks-methods",
  source: "github",
  secret: secrets.github,
  otherSecret: `${secrets.github}0`,
  samples: [["github", "push"], ["github", "issues.opened"]],
  request: (size) => signed(event(size)),
  verifies: ({ headers, body }) => verify(secrets.github, body.toString(), headers[HEADER]),
  changes: {
    "a bit of the body": bodyBit,
    "the end of the body": bodyCut,
    "a bit of the signature": headerBit(HEADER),
    "the older header's prefix": (request) => withHeaders(request, { [HEADER]: request.headers[HEADER].replace("sha256=", "sha1=") }),
    "upper case": (request) => withHeaders(request, { [HEADER]: `sha256=${request.headers[HEADER].slice(7).toUpperCase()}` }),
  },
  differences: [
    {
      what: "a form",
      why: "the library looks at the signature only",
      library: true,
      binary: "malformed_event",
      request: () => signed("payload=%7B%7D"),
    },
    {
      what: "bytes that are not UTF-8",
      why: "the library's caller has to decode them to a text first",
      library: true,
      binary: "no_matching_signature",
      request: async () => ({ ...(await signed('{"a":"\ufffd"}')), body: Buffer.from('{"a":"\xff"}', "latin1") }),
    },
  ],
});
