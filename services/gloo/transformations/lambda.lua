-- Makes events for functions of AWS Lambda out of requests, and answers out of what they return. What is
-- wanted comes in the filter's context, from the route.

-- What is no UTF-8 has no place in JSON
local function is_text(text)
  if not find(text, "[\128-\255]") then return true end
  local rest = gsub(text, "[\194-\223][\128-\191]", " ")
  rest = gsub(rest, "[\224-\239][\128-\191][\128-\191]", " ")
  rest = gsub(rest, "[\240-\244][\128-\191][\128-\191][\128-\191]", " ")
  return not find(rest, "[\128-\255]")
end

local function as_text(value) return is_text(value) and value or (gsub(value, "[\128-\255]", "?")) end

local function note(single, several, name, value, join)
  name, value = as_text(name), as_text(value)
  single[name] = join and single[name] and single[name] .. "," .. value or value
  several[name] = several[name] or array({})
  several[name][#several[name] + 1] = value
end

local function event(handle, body)
  local headers = handle:headers()
  local single, several, query, queries = {}, {}, {}, {}
  for name, value in pairs(headers) do
    if sub(name, 1, 1) ~= ":" then note(single, several, name, value, true) end
  end
  note(single, several, "host", headers:get(":authority") or "")
  local path, question = (headers:get(":path") or ""):match("^([^?]*)%??(.*)$")
  for name, value in question:gmatch("([^&=]+)=?([^&]*)") do note(query, queries, name, value) end
  local text = is_text(body)
  return encode({
    httpMethod = headers:get(":method"),
    path = as_text(path),
    queryString = as_text(question),
    queryStringParameters = query,
    multiValueQueryStringParameters = queries,
    headers = single,
    multiValueHeaders = several,
    body = text and body or handle:base64Escape(body),
    isBase64Encoded = not text,
  })
end

function envoy_on_request(handle)
  local call, headers = handle:filterContext(), handle:headers()
  if call:get("originals") then
    for name, pseudo in pairs({ host = ":authority", method = ":method", path = ":path" }) do
      headers:replace("x-envoy-original-" .. name, headers:get(pseudo) or "")
    end
  end
  if not call:get("wrap") then return end
  local buffer, body = handle:body(true), ""
  if buffer:length() > 0 then body = buffer:getBytes(0, buffer:length()) end
  local good, made = pcall(event, handle, body)
  if not good then
    handle:respond({ [":status"] = "400" }, "no event can be made of the request")
    return
  end
  buffer:setBytes(made)
  handle:headers():replace("content-type", "application/json")
end

local FRAMING = { ["content-length"] = true, ["transfer-encoding"] = true, connection = true, upgrade = true }
local BODILESS = { ["204"] = true, ["304"] = true }

local function add(found, name, value)
  if is_exact(value) then value = value.text end
  if type(value) == "table" then error("a header's value is a text", 0) end
  name, value = string.lower(name), tostring(value)
  if not find(name, "^[%w!#$%%&'*+.^_`|~-]+$") then error("a bad name of a header", 0) end
  if find(value, "[%z\1-\8\10-\31\127]") then error("a control character in " .. name, 0) end
  if not FRAMING[name] then found[#found + 1] = { name, value } end
end

local function members(value, is_kind, what)
  if value == nil or value == NULL then return {} end
  return is_kind(value) and value or error(what, 0)
end

-- All that the answer is made of, before anything is changed
local function answer(text)
  local given = decode(text)
  if not is_object(given) then error("no object", 0) end
  local found, several = {}, members(given.multiValueHeaders, is_object, "multiValueHeaders is an object")
  for name, value in pairs(members(given.headers, is_object, "headers is an object")) do
    if several[name] == nil then add(found, name, value) end
  end
  for name, values in pairs(several) do
    for _, value in ipairs(members(values, is_array, "multiValueHeaders has lists")) do add(found, name, value) end
  end
  for _, value in ipairs(members(given.cookies, is_array, "cookies is a list")) do add(found, "set-cookie", value) end
  local status = given.statusCode
  status = (status == nil or status == NULL) and "200" or tostring(status)
  if not find(status, "^[2-5]%d%d$") then error("a bad statusCode", 0) end
  local body = given.body
  if body == nil or body == NULL then body = "" end
  if type(body) ~= "string" then error("body is a text", 0) end
  if given.isBase64Encoded == true then body = from_base64(body) end
  return { status = status, headers = found, body = BODILESS[status] and "" or body }
end

function envoy_on_response(handle)
  local headers = handle:headers()
  if headers:get("x-amz-function-error") then
    headers:replace(":status", "504")
    return
  end
  if not handle:filterContext():get("unwrap") or headers:get(":status") ~= "200" then return end
  local buffer, text = handle:body(true), ""
  if buffer:length() > 0 then text = buffer:getBytes(0, buffer:length()) end
  local good, found = pcall(answer, text)
  headers = handle:headers()
  if not good then
    handle:logDebug("lambda: " .. tostring(found))
    found = { status = "502", headers = { { "content-type", "text/plain" } }, body = "the function's answer is malformed" }
  end
  headers:replace(":status", found.status)
  for _, each in ipairs(found.headers) do headers:remove(each[1]) end
  for _, each in ipairs(found.headers) do headers:add(each[1], each[2]) end
  buffer:setBytes(found.body)
end
