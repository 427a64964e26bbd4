// Starts Swagger UI from a file of its own, so that the page's Content-Security-Policy can forbid inline scripts.
const page = document.getElementById("swagger-ui");

const ui = SwaggerUIBundle({
  url: page.dataset.openapi,
  domNode: page,
  deepLinking: true,
  displayRequestDuration: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
  oauth2RedirectUrl: new URL(page.dataset.redirect, location.href).href,
});

ui.initOAuth({ clientId: page.dataset.client, usePkceWithAuthorizationCodeGrant: true });
