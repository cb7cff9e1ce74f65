// Light, dark or as the system says. The dark colours stand in one media rule, which is switched on or off here.
(() => {
  "use strict";
  const MEDIA = { automatic: "(prefers-color-scheme: dark)", light: "not all", dark: "screen" };
  const rules = [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules])
    .filter((rule) => rule.media && rule.media.mediaText.includes("prefers-color-scheme"));
  const show = (theme) => {
    for (const rule of rules) rule.media.mediaText = MEDIA[theme];
    document.documentElement.style.colorScheme = theme === "automatic" ? "" : theme;
    document.documentElement.dataset.theme = theme;
  };
  let theme = "automatic";
  try { theme = localStorage.getItem("theme") || theme; } catch { /* storage may be forbidden */ }
  show(theme in MEDIA ? theme : "automatic");
  document.documentElement.classList.add("js");
  window.setTheme = (chosen) => {
    show(chosen);
    try { localStorage.setItem("theme", chosen); } catch { /* then it is not remembered */ }
  };
})();
