"""What the providers' Python libraries say of requests.

Reads a JSON object a line: n, library, secret, headers (names in lower case), body (base64), url.
Writes one for each: n, and whether the library takes it.
"""

import base64
import json
import sys
from types import SimpleNamespace
from urllib.parse import parse_qs

import paddle_billing.Notifications
import sendgrid.helpers.eventwebhook
import standardwebhooks
import stripe
import svix
import twilio.request_validator


class Form(dict):
    """Fields as a framework has them."""

    def getlist(self, name):
        return self[name]


def by_stripe(secret, headers, body, url):
    stripe.Webhook.construct_event(body, headers["stripe-signature"], secret)


def by_svix(secret, headers, body, url):
    svix.Webhook(secret).verify(body, headers)


def by_standardwebhooks(secret, headers, body, url):
    standardwebhooks.Webhook(secret).verify(body, headers)


def by_paddle(secret, headers, body, url):
    names = {"Paddle-Signature": headers["paddle-signature"]}
    request = SimpleNamespace(headers=names, body=body, content=body, data=body)
    secrets = paddle_billing.Notifications.Secret(secret)
    return paddle_billing.Notifications.Verifier().verify(request, secrets)


def by_twilio(secret, headers, body, url):
    validator = twilio.request_validator.RequestValidator(secret)
    json_body = headers.get("content-type", "").startswith("application/json")
    params = body.decode() if json_body else Form(parse_qs(body.decode(), keep_blank_values=True))
    return validator.validate(url, params, headers["x-twilio-signature"])


def by_sendgrid(secret, headers, body, url):
    webhook = sendgrid.helpers.eventwebhook.EventWebhook(secret)
    signature = headers["x-twilio-email-event-webhook-signature"]
    timestamp = headers["x-twilio-email-event-webhook-timestamp"]
    return webhook.verify_signature(body.decode(), signature, timestamp)


LIBRARIES = {
    "stripe": by_stripe,
    "svix": by_svix,
    "standardwebhooks": by_standardwebhooks,
    "paddle": by_paddle,
    "twilio": by_twilio,
    "sendgrid": by_sendgrid,
}

for line in sys.stdin:
    request = json.loads(line)
    body = base64.b64decode(request["body"])
    try:
        verify = LIBRARIES[request["library"]]
        valid = verify(request["secret"], request["headers"], body, request["url"]) is not False
    except Exception as error:  # Each has its own; a refusal is a refusal.
        valid = False
        if isinstance(error, (AttributeError, ImportError, NameError, TypeError)):
            print(request["library"], repr(error), file=sys.stderr)
    print(json.dumps({"n": request["n"], "valid": valid}), flush=True)
