-- Makes a request the call of a function of AWS Lambda. Everything that passes here is signed behind it, so
-- what no route sends to a function goes nowhere, and clients have no say in the terms of a call.

function envoy_on_request(handle)
  local call, headers = handle:filterContext(), handle:headers()
  local path = call:get("path")
  if not path then
    handle:respond({ [":status"] = "404" }, "no route leads to a function of this upstream here")
    return
  end
  headers:replace(":path", path)
  headers:replace(":method", "POST")
  local terms = { "authorization" }
  for name in pairs(headers) do
    if name:sub(1, 6) == "x-amz-" then terms[#terms + 1] = name end
  end
  for _, name in ipairs(terms) do headers:remove(name) end
  headers:replace("x-amz-invocation-type", call:get("type"))
end
