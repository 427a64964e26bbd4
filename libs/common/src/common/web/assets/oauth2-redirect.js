// Hands the response of the sign-in, which led to this page in a window of its own, back to Swagger UI, and closes it.
const request = window.opener && window.opener.swaggerUIRedirectOauth2;
if (request) {
  const response = new URLSearchParams(location.search);
  const refuse = (message) => request.errCb({ authId: request.auth.name, source: "auth", level: "error", message });
  if (response.get("state") !== request.state || response.get("iss") !== location.origin) {
    refuse("This is not the response to the request of this page.");
  } else if (response.has("code")) {
    request.auth.code = response.get("code");
    delete request.state;
    request.callback({ auth: request.auth, redirectUrl: request.redirectUrl });
  } else {
    refuse(response.get("error_description") || response.get("error") || "The response has no code.");
  }
  window.close();
}
