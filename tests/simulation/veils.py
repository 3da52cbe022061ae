"""Something in between that shows less of an API than there is: an empty project, a Secret that cannot be read.

An API that refuses for good what it could do is one of them: deletes that an admin key lacks the right for.

Guarantee: nothing is changed behind a veil but by requests that it lets through.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sandbox.kubernetes.server import Kubernetes
from sandbox.openai.server import OpenAI
from sandbox.transport.wire import Request, Response
from worker.model.values import Ref

EXTERNAL_SECRETS = "external-secrets.io"
"""Their API group."""
EMPTY_LIST: dict[str, object] = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


@dataclass
class VeiledOpenAI:
    """`empty`: projects of which lists show nothing, and of which every account and key answers 404.

    `keeps`: no admin key may delete accounts.
    """

    openai: OpenAI
    empty: set[str] = field(default_factory=set)
    keeps: bool = False

    def handle(self, request: Request) -> Response:
        """Answer one request."""
        parts = request.segments
        if self.keeps and request.method == "DELETE" and "service_accounts" in parts:
            message = "You have insufficient permissions for this operation. Missing scopes: api.management.write."
            return Response.of_json(403, {"error": {"message": message, "code": None}})
        if len(parts) >= 5 and parts[3] in self.empty and parts[4] in ("service_accounts", "api_keys"):
            if len(parts) > 5:
                return Response.of_json(404, {"error": {"message": f"No {parts[4]} of that id.", "code": None}})
            if request.method == "GET":
                return Response.of_json(200, EMPTY_LIST)
        return self.openai.handle(request)


@dataclass
class VeiledKubernetes:
    """`hidden`: Secrets that a GET does not find, although they exist. `unserved`: ExternalSecrets are not served."""

    kubernetes: Kubernetes
    hidden: set[Ref] = field(default_factory=set)
    unserved: bool = False

    def handle(self, request: Request) -> Response:
        """Answer one request."""
        parts = request.segments
        if self.unserved and parts[:2] == ("apis", EXTERNAL_SECRETS):
            return Response.of_text(404, "404 page not found")
        response = self.kubernetes.handle(request)
        if self.unserved and parts == ("apis",):
            groups = response.json()
            groups["groups"] = [group for group in groups["groups"] if group["name"] != EXTERNAL_SECRETS]
            return Response.of_json(200, groups)
        if (
            request.method == "GET"
            and len(parts) == 6
            and parts[4] == "secrets"
            and Ref(parts[3], parts[5]) in self.hidden
        ):
            return Response(404, response.headers, not_found(parts[5]).body)
        return response


def not_found(secret: str) -> Response:
    """What an API server says of a Secret that does not exist."""
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "NotFound"}
    details = {"name": secret, "kind": "secrets"}
    return Response.of_json(404, status | {"message": f'secrets "{secret}" not found', "details": details, "code": 404})
