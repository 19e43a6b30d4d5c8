/* Starts Swagger UI on /api/docs. A file of its own, since the content security policy allows no inline script. */
"use strict";
window.addEventListener("DOMContentLoaded", () => {
  const place = document.getElementById("swagger-ui");
  if (typeof SwaggerUIBundle !== "function") {
    document.getElementById("no-swagger-ui").hidden = false;
    return;
  }
  SwaggerUIBundle({
    url: place.dataset.url,
    dom_id: "#swagger-ui",
    deepLinking: true,
    validatorUrl: null, // nothing is told to other hosts
    presets: [SwaggerUIBundle.presets.apis],
    layout: "BaseLayout",
    defaultModelsExpandDepth: 0,
    docExpansion: "list",
    tryItOutEnabled: false,
  });
});
